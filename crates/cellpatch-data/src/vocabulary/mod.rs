//! Genes and their tokens: the rows of a model's gene table.

mod gene;
mod reference;
mod report;
mod species;
mod spreadsheet;
mod storage;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

pub use gene::Gene;
pub(crate) use gene::ensembl_id;
pub use reference::{GeneReference, ReferenceGene};
pub use report::{MatchReport, MatchRow};
pub use species::{MousePolicy, Species, humanize, orthologs};

use crate::error::{Error, Result};

/// A row of the gene table. 0 is padding and no gene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GeneToken(pub u32);

impl GeneToken {
    /// The token that fills batches up.
    pub const PADDING: Self = Self(0);
}

/// A stable mapping between genes and tokens 1, 2, 3, ...
///
/// A gene is found by its Ensembl id first, then by its symbol. One known by only one of the names takes on the other
/// from the first file that links them, or from the table of human genes, so that files with ids and files with symbols meet
/// in the same token. Two files that name a gene differently and are both read before the one that links them cannot if the
/// table does not know the gene: they leave two tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneVocabulary {
    capacity: usize,
    /// The gene of token `position + 1`.
    genes: Vec<Gene>,
    by_id: HashMap<String, GeneToken>,
    /// Symbol -> the first token that had it.
    by_symbol: HashMap<String, GeneToken>,
    /// `C3` of a gene named `C3_ENSG00000125730` -> its token, or `None` if several share it.
    by_shared: HashMap<String, Option<GeneToken>>,
    /// Symbol in lower case -> its token, or `None` if several share it.
    by_folded: HashMap<String, Option<GeneToken>>,
}

/// How the columns of one file map to tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GeneMatch {
    /// One per column; `None` where the gene is not in the vocabulary.
    pub tokens: Vec<Option<GeneToken>>,
    /// Columns matched by Ensembl id.
    pub by_id: usize,
    /// Columns matched by symbol, exactly written or but for an id appended to it.
    pub by_symbol: usize,
    /// Columns matched by symbol in other capitals.
    pub by_folded_symbol: usize,
    /// Columns matched by another name the gene has or had, dates that were names among them.
    pub by_alias: usize,
    /// Names that a spreadsheet took for dates, and what they were.
    pub repaired: Vec<RepairedName>,
    /// Columns with such names that may be several genes and were left unmatched.
    pub ambiguous: Vec<usize>,
    /// Columns that became new tokens.
    pub new: usize,
    /// Columns whose token an earlier column has too: their counts belong together.
    pub duplicates: usize,
    /// Columns without a token.
    pub misses: Vec<usize>,
}

/// A name that a spreadsheet took for a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairedName {
    /// The column, counted from 0.
    pub column: usize,
    /// What the file has: `2-Sep`.
    pub name: String,
    /// The gene it was.
    pub symbol: String,
}

impl GeneMatch {
    /// Columns with a token that was in the vocabulary before.
    pub fn n_matched(&self) -> usize {
        self.by_id + self.by_symbol + self.by_folded_symbol + self.by_alias
    }

    /// Matched columns among all, from 0 to 1; 1 for a file without genes.
    pub fn rate(&self) -> f64 {
        if self.tokens.is_empty() { 1.0 } else { self.n_matched() as f64 / self.tokens.len() as f64 }
    }
}

/// A way to find a gene, surest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Id,
    Symbol,
    /// The id, in a vocabulary that knows the gene by its symbol, or the other way round.
    Reference,
    /// The symbol, where one side appends the id to it.
    SharedSymbol,
    FoldedSymbol,
    /// Another symbol of the gene: older, newer, or in use beside.
    Alias,
    /// What a spreadsheet took for a date.
    Date,
}

/// The token of a column and how it was found.
type Hits = Vec<Option<(GeneToken, By)>>;

impl GeneVocabulary {
    /// An empty vocabulary.
    ///
    /// - `capacity`: rows of the gene table, padding included.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            genes: Vec::new(),
            by_id: HashMap::new(),
            by_symbol: HashMap::new(),
            by_shared: HashMap::new(),
            by_folded: HashMap::new(),
        }
    }

    /// The human genes of the table in `datasets/genes`: tokens 1, 2, ... in its order.
    ///
    /// - `capacity`: rows of the gene table, padding included.
    ///
    /// # Errors
    /// [`Error::VocabularyFull`] if they do not fit the capacity.
    pub fn reference(capacity: usize) -> Result<Self> {
        let known = GeneReference::human().genes();
        if known.len() + 1 > capacity {
            let path = Path::new("the table of human genes").to_path_buf();
            return Err(Error::VocabularyFull { path, new: known.len(), used: 1, capacity });
        }
        let mut vocabulary = Self::new(capacity);
        for gene in known {
            vocabulary.push(Gene::new(Some(gene.ensembl_id), Some(gene.symbol)));
        }
        Ok(vocabulary)
    }

    /// The species most of its genes are of, as far as names tell.
    pub fn species(&self) -> Option<Species> {
        Species::of(&self.genes)
    }

    /// Rows of the gene table, padding included.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many genes there are, without padding.
    pub fn len(&self) -> usize {
        self.genes.len()
    }

    /// Whether there is no gene.
    pub fn is_empty(&self) -> bool {
        self.genes.is_empty()
    }

    /// The gene of a token; `None` for padding and tokens not given out.
    pub fn gene(&self, token: GeneToken) -> Option<&Gene> {
        self.genes.get((token.0 as usize).checked_sub(1)?)
    }

    /// Every gene with its token, tokens ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (GeneToken, &Gene)> {
        self.genes.iter().enumerate().map(|(position, gene)| (GeneToken(position as u32 + 1), gene))
    }

    /// Finds the tokens of a file's genes; those not in the vocabulary are misses.
    ///
    /// Symbols in other capitals count only while they are the minority of what matched: a file where most would have to
    /// be folded is of another species (mouse writes `Trp53`), not badly typed.
    pub fn match_genes(&self, genes: &[Gene]) -> GeneMatch {
        Self::assign(&mut Cow::Borrowed(self), genes)
    }

    /// Finds the tokens of a file's genes and gives new ones to those not in the vocabulary. Known genes take on names they
    /// lacked.
    ///
    /// - `path`: the file, for the error.
    ///
    /// # Errors
    /// [`Error::VocabularyFull`] if the new genes exceed the capacity; the vocabulary is then as before.
    pub fn extend(&mut self, genes: &[Gene], path: &Path) -> Result<GeneMatch> {
        let mut extended = Cow::Borrowed(&*self);
        let mut matched = Self::assign(&mut extended, genes);
        for column in std::mem::take(&mut matched.misses) {
            let gene = &genes[column];
            // Two new columns may be the same gene.
            let known = [By::Id, By::Symbol].into_iter().find_map(|by| extended.find(gene, by));
            if *gene == Gene::default() {
                matched.misses.push(column);
                continue;
            }
            matched.new += 1;
            matched.duplicates += usize::from(known.is_some());
            matched.tokens[column] = Some(known.unwrap_or_else(|| extended.to_mut().push(gene.clone())));
        }
        if extended.len() + 1 > self.capacity {
            return Err(Error::VocabularyFull {
                path: path.to_path_buf(),
                new: extended.len() - self.len(),
                used: self.len() + 1,
                capacity: self.capacity,
            });
        }
        if let Cow::Owned(extended) = extended {
            *self = extended;
        }
        Ok(matched)
    }

    /// Matches genes, taking on names as links are found. What nothing is added to is not copied.
    fn assign(known: &mut Cow<'_, Self>, genes: &[Gene]) -> GeneMatch {
        let mut hits: Hits = vec![None; genes.len()];
        // One way after the other for the whole file: a column must not claim a token that a later one is surer of.
        for by in [By::Id, By::Symbol, By::Reference] {
            for (hit, gene) in hits.iter_mut().zip(genes).filter(|(hit, _)| hit.is_none()) {
                if let Some(token) = known.find(gene, by) {
                    *hit = Some((token, by));
                    Self::take_on(known, token, gene);
                }
            }
        }
        for by in [By::SharedSymbol, By::FoldedSymbol, By::Alias, By::Date] {
            Self::assign_loosely(known, genes, by, &mut hits);
        }
        known.summary(genes, &hits)
    }

    /// Matches what is left in a less certain way: only to genes the file has not named yet, as a file with both spellings
    /// means two genes, and only if fewer genes match so than match for certain.
    fn assign_loosely(known: &mut Cow<'_, Self>, genes: &[Gene], by: By, hits: &mut Hits) {
        let taken: HashSet<GeneToken> = hits.iter().flatten().map(|&(token, _)| token).collect();
        let loose: Vec<(usize, GeneToken)> = genes
            .iter()
            .enumerate()
            .filter(|&(column, _)| hits[column].is_none())
            .filter_map(|(column, gene)| Some((column, known.find(gene, by)?)))
            .filter(|(_, token)| !taken.contains(token))
            .collect();
        if loose.len() >= taken.len() {
            return;
        }
        for (column, token) in loose {
            // The column before may have given this token another id.
            if known.is_compatible(token, &genes[column]) {
                hits[column] = Some((token, by));
                Self::take_on(known, token, &genes[column]);
            }
        }
    }

    /// The token of a gene, found in one way.
    fn find(&self, gene: &Gene, by: By) -> Option<GeneToken> {
        if self.is_empty() {
            return None;
        }
        if by == By::Id {
            return self.by_id.get(gene.ensembl_id.as_ref()?).copied();
        }
        if by == By::Reference {
            return self.find_reference(gene);
        }
        if by == By::SharedSymbol && gene.symbol.is_none() {
            // An id alone has the symbol the table gives it.
            let known = GeneReference::human().by_id(gene.ensembl_id.as_ref()?)?;
            let named = Gene::new(Some(known.ensembl_id), Some(known.symbol));
            // Some genes have no symbol there either, but their id again.
            return named.symbol.is_some().then(|| self.find(&named, by)).flatten();
        }
        let symbol = gene.symbol.as_ref()?;
        let token = match by {
            By::Alias => self.find_alias(symbol),
            By::Date => match self.find_dated(symbol).as_slice() {
                &[only] => Some(only),
                _ => None,
            },
            By::Id | By::Reference | By::Symbol => self.by_symbol.get(symbol).copied(),
            By::SharedSymbol => match gene.shared_symbol() {
                Some(shared) => self.by_symbol.get(shared).copied(),
                None => self.by_shared.get(symbol).copied().flatten(),
            },
            By::FoldedSymbol => self.by_folded.get(&symbol.to_lowercase()).copied().flatten(),
        };
        token.filter(|&token| self.is_compatible(token, gene))
    }

    /// The token of the gene that the table of human genes knows by this id, under any of its names.
    fn find_reference(&self, gene: &Gene) -> Option<GeneToken> {
        let known = match (&gene.ensembl_id, &gene.symbol) {
            (Some(id), _) => GeneReference::human().by_id(id)?,
            (None, Some(symbol)) => {
                GeneReference::human().by_symbol(symbol).filter(|known| known.symbol == *symbol)?
            }
            (None, None) => return None,
        };
        self.named_as(known).filter(|&token| self.is_compatible(token, gene))
    }

    /// The token of a gene of the table, by its id or else a symbol that no other gene has here.
    fn named_as(&self, known: &ReferenceGene) -> Option<GeneToken> {
        let bare = Gene::new(Some(known.ensembl_id), None);
        let by_id = self.by_id.get(known.ensembl_id).copied();
        let by_symbol = |symbol: &str| self.by_symbol.get(symbol).copied();
        by_id
            .or_else(|| by_symbol(known.symbol).filter(|&token| self.is_compatible(token, &bare)))
            .or_else(|| by_symbol(known.other_symbol).filter(|&token| self.is_compatible(token, &bare)))
    }

    /// The token of a gene of the table by a symbol it had or has beside, if that is no other gene's.
    fn named_beside(&self, known: &ReferenceGene) -> Option<GeneToken> {
        let names = known.previous_symbols().chain(known.alias_symbols());
        let mut own = names.filter(|name| GeneReference::human().by_symbol(name) == Some(known));
        let bare = Gene::new(Some(known.ensembl_id), None);
        own.find_map(|name| {
            self.by_symbol.get(name).copied().filter(|&token| self.is_compatible(token, &bare))
        })
    }

    /// The token of a gene by a symbol it has in another release, had or has beside, or had before its family was renamed.
    fn find_alias(&self, symbol: &str) -> Option<GeneToken> {
        let known = GeneReference::human().by_symbol(symbol);
        known.and_then(|known| self.named_as(known).or_else(|| self.named_beside(known))).or_else(|| {
            let other = spreadsheet::renamed(symbol)?;
            self.by_symbol.get(&other).copied()
        })
    }

    /// The tokens a name that looks like a date can have been.
    fn find_dated(&self, name: &str) -> Vec<GeneToken> {
        if self.is_empty() {
            return Vec::new();
        }
        let names = spreadsheet::candidates(name);
        let found = names
            .iter()
            .filter_map(|name| self.by_symbol.get(name).copied().or_else(|| self.find_alias(name)));
        let mut tokens: Vec<GeneToken> = found.collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// Genes of different ids are different, whatever their symbols.
    fn is_compatible(&self, token: GeneToken, gene: &Gene) -> bool {
        let known = self.gene(token).and_then(|known| known.ensembl_id.as_ref());
        known.is_none() || gene.ensembl_id.is_none() || known == gene.ensembl_id.as_ref()
    }

    /// Gives a known gene the names it lacks.
    fn take_on(vocabulary: &mut Cow<'_, Self>, token: GeneToken, gene: &Gene) {
        let Some(known) = vocabulary.gene(token) else { return };
        let adds_id = known.ensembl_id.is_none() && gene.ensembl_id.is_some();
        let adds_symbol = known.symbol.is_none() && gene.symbol.is_some();
        if !(adds_id || adds_symbol) {
            return;
        }
        let mut named = known.clone();
        if adds_id {
            named.ensembl_id.clone_from(&gene.ensembl_id);
        }
        if adds_symbol {
            named.symbol.clone_from(&gene.symbol);
        }
        let vocabulary = vocabulary.to_mut();
        vocabulary.index(token, &named);
        vocabulary.genes[token.0 as usize - 1] = named;
    }

    /// Counts what was found and how.
    fn summary(&self, genes: &[Gene], hits: &Hits) -> GeneMatch {
        let count = |ways: &[By]| hits.iter().flatten().filter(|(_, by)| ways.contains(by)).count();
        let mut seen = vec![false; self.genes.len() + 1];
        let duplicate = |(token, _): &&(GeneToken, By)| std::mem::replace(&mut seen[token.0 as usize], true);
        let misses: Vec<usize> = (0..hits.len()).filter(|&column| hits[column].is_none()).collect();
        let dated = |&column: &usize| {
            genes[column].symbol.as_deref().is_some_and(|name| self.find_dated(name).len() > 1)
        };
        let repaired = |(column, hit): (usize, &Option<(GeneToken, By)>)| {
            let (token, _) = (*hit).filter(|(_, by)| *by == By::Date)?;
            let symbol = self.gene(token).map_or("", Gene::name).to_string();
            Some(RepairedName { column, name: genes[column].name().to_string(), symbol })
        };
        // A gene that is known to the vocabulary by the other name only was matched by the name the file has.
        let by_reference = |has_id: bool| {
            let columns = hits.iter().zip(genes).filter(|(hit, _)| matches!(hit, Some((_, By::Reference))));
            columns.filter(|(_, gene)| gene.ensembl_id.is_some() == has_id).count()
        };
        GeneMatch {
            tokens: hits.iter().map(|hit| hit.map(|(token, _)| token)).collect(),
            by_id: count(&[By::Id]) + by_reference(true),
            by_symbol: count(&[By::Symbol, By::SharedSymbol]) + by_reference(false),
            by_folded_symbol: count(&[By::FoldedSymbol]),
            by_alias: count(&[By::Alias, By::Date]),
            repaired: hits.iter().enumerate().filter_map(repaired).collect(),
            ambiguous: misses.iter().copied().filter(dated).collect(),
            new: 0,
            duplicates: hits.iter().flatten().filter(duplicate).count(),
            misses,
        }
    }

    fn push(&mut self, gene: Gene) -> GeneToken {
        let token = GeneToken(self.genes.len() as u32 + 1);
        self.index(token, &gene);
        self.genes.push(gene);
        token
    }

    fn index(&mut self, token: GeneToken, gene: &Gene) {
        if let Some(id) = &gene.ensembl_id {
            self.by_id.entry(id.clone()).or_insert(token);
        }
        if let Some(symbol) = &gene.symbol {
            self.by_symbol.entry(symbol.clone()).or_insert(token);
            insert_unless_shared(&mut self.by_folded, symbol.to_lowercase(), token);
        }
        if let Some(shared) = gene.shared_symbol() {
            insert_unless_shared(&mut self.by_shared, shared.to_string(), token);
        }
    }
}

/// Maps a name to a token, or to none once two tokens lay claim to it.
fn insert_unless_shared(names: &mut HashMap<String, Option<GeneToken>>, name: String, token: GeneToken) {
    names
        .entry(name)
        .and_modify(|known| *known = known.filter(|&known| known == token))
        .or_insert(Some(token));
}

#[cfg(test)]
mod tests;
