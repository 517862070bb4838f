//! Of which species genes are, judged by how they are written.

use std::collections::HashMap;
use std::fmt;

use super::{Gene, GeneReference};

/// A share of names from which on they decide.
const MOST: f64 = 0.5;
/// Fewest names that can decide.
const MIN_NAMES: usize = 10;

/// A species, as far as names tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Species {
    /// Ids `ENSG...`, symbols in capitals.
    Human,
    /// Ids `ENSMUSG...`.
    Mouse,
    /// Symbols with one capital, as mouse and rat have: `Trp53`.
    Rodent,
    /// Another prefix of Ensembl's: `ENSDAR` is the zebrafish.
    Ensembl(String),
}

/// What becomes of mouse genes that should be human ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MousePolicy {
    /// They are refused.
    #[default]
    Refuse,
    /// Their symbols are written in capitals: an approximation, see [`humanize`].
    Uppercase,
    /// They become their human orthologs, where there is one alone, see [`orthologs`].
    Orthologs,
}

impl fmt::Display for Species {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Human => formatter.write_str("human"),
            Self::Mouse => formatter.write_str("mouse"),
            Self::Rodent => formatter.write_str("mouse or rat"),
            Self::Ensembl(prefix) => formatter.write_str(match prefix.as_str() {
                "ENSRNO" => "rat",
                "ENSDAR" => "zebrafish",
                "ENSMMU" => "rhesus macaque",
                "ENSMFA" => "crab-eating macaque",
                "ENSSSC" => "pig",
                "ENSGAL" => "chicken",
                other => return write!(formatter, "species {other} of Ensembl"),
            }),
        }
    }
}

impl Species {
    /// The species most of the genes are of; `None` where names do not tell.
    pub fn of(genes: &[Gene]) -> Option<Self> {
        let mut prefixes: HashMap<&str, usize> = HashMap::new();
        for id in genes.iter().filter_map(|gene| gene.ensembl_id.as_deref()) {
            // ENS, the species' letters (none for human), G, digits.
            let letters = id.find(|letter: char| letter.is_ascii_digit()).unwrap_or(id.len());
            *prefixes.entry(id.get(..letters.saturating_sub(1)).unwrap_or_default()).or_insert(0) += 1;
        }
        let n_ids: usize = prefixes.values().sum();
        if n_ids >= MIN_NAMES && n_ids as f64 > MOST * genes.len() as f64 {
            let (prefix, count) = prefixes.into_iter().max_by_key(|&(prefix, count)| (count, prefix))?;
            return (count as f64 > MOST * n_ids as f64).then(|| match prefix {
                "ENS" => Self::Human,
                "ENSMUS" => Self::Mouse,
                other => Self::Ensembl(other.to_string()),
            });
        }
        let symbols: Vec<&str> = genes.iter().filter_map(|gene| gene.symbol.as_deref()).collect();
        let share = |is: fn(&str) -> bool| {
            symbols.iter().filter(|symbol| is(symbol)).count() as f64 / symbols.len() as f64
        };
        if symbols.len() < MIN_NAMES {
            return None;
        }
        if share(has_one_capital) > MOST {
            return Some(Self::Rodent);
        }
        (share(is_in_capitals) > MOST).then_some(Self::Human)
    }

    /// Whether genes of the two can be the same: a species that is not told apart is no other.
    pub fn may_be(&self, other: &Self) -> bool {
        let rodents = |species: &Self| match species {
            Self::Rodent | Self::Mouse => true,
            Self::Ensembl(prefix) => prefix == "ENSRNO",
            Self::Human => false,
        };
        self == other
            || ((*self == Self::Rodent || *other == Self::Rodent) && rodents(self) && rodents(other))
    }
}

/// `Trp53`, `Cd8a`, but not `A` or `CD8A`.
fn has_one_capital(symbol: &str) -> bool {
    let mut letters = symbol.chars().filter(|letter| letter.is_ascii_alphabetic());
    symbol.starts_with(|first: char| first.is_ascii_uppercase())
        && letters.next().is_some()
        && symbol.chars().any(|letter| letter.is_ascii_lowercase())
        && letters.filter(|letter| letter.is_ascii_uppercase()).count() == 0
}

fn is_in_capitals(symbol: &str) -> bool {
    let has_letters = symbol.chars().any(|letter| letter.is_ascii_uppercase());
    // Open reading frames are written C1orf112.
    has_letters && symbol.replacen("orf", "", 1).chars().all(|letter| !letter.is_ascii_lowercase())
}

/// Mouse genes under the names of human ones: symbols in capitals, ids gone. Genes whose names become those of another are
/// left without a name.
///
/// This is an approximation: most orthologs are called alike, but not all, and not all genes of one name are orthologs
/// (`Trp53` does not become `TP53`).
pub fn humanize(genes: &[Gene]) -> Vec<Gene> {
    let raised: Vec<Option<String>> =
        genes.iter().map(|gene| gene.symbol.as_ref().map(|symbol| symbol.to_uppercase())).collect();
    let mut sources: HashMap<&str, Option<&str>> = HashMap::new();
    for (gene, raised) in genes.iter().zip(&raised) {
        if let (Some(symbol), Some(raised)) = (gene.symbol.as_deref(), raised.as_deref()) {
            let known = sources.entry(raised).or_insert(Some(symbol));
            *known = known.filter(|known| *known == symbol);
        }
    }
    let is_one_to_one = |raised: &&String| sources.get(raised.as_str()).copied().flatten().is_some();
    raised
        .iter()
        .map(|raised| Gene { ensembl_id: None, symbol: raised.as_ref().filter(is_one_to_one).cloned() })
        .collect()
}

/// Mouse genes as the human genes they are the one ortholog of, by id or else by symbol (HGNC and MGI: 18,000 pairs). Genes
/// with none, or with several, are left without a name.
pub fn orthologs(genes: &[Gene]) -> Vec<Gene> {
    let ortholog = |gene: &Gene| {
        let human = GeneReference::human().by_ortholog(gene.ensembl_id.as_deref(), gene.symbol.as_deref());
        human.map_or_else(Gene::default, |human| Gene::new(Some(human.ensembl_id), Some(human.symbol)))
    };
    genes.iter().map(ortholog).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(names: &[&str]) -> Vec<Gene> {
        names.iter().map(|name| Gene::new(None, Some(name))).collect()
    }

    #[test]
    fn ids_and_capitals_tell_the_species() {
        let ids = |prefix: &str| -> Vec<Gene> {
            (0..20).map(|number| Gene::new(Some(&format!("{prefix}{number:011}")), None)).collect()
        };
        assert_eq!(Species::of(&ids("ENSG")), Some(Species::Human));
        assert_eq!(Species::of(&ids("ENSMUSG")), Some(Species::Mouse));
        assert_eq!(Species::of(&ids("ENSDARG")).unwrap().to_string(), "zebrafish");
        let mouse =
            ["Trp53", "Cd8a", "Gapdh", "Actb", "Xkr4", "Sox17", "Rgs20", "Tcea1", "Lypla1", "mt-Nd1", "Cd4"];
        assert_eq!(Species::of(&symbols(&mouse)), Some(Species::Rodent));
        let human =
            ["TP53", "CD8A", "GAPDH", "ACTB", "C1orf112", "SOX17", "MT-ND1", "HLA-A", "RP11-34P13.7", "LYZ"];
        assert_eq!(Species::of(&symbols(&human)), Some(Species::Human));
        assert_eq!(Species::of(&symbols(&mouse[..3])), None);
        assert!(Species::Rodent.may_be(&Species::Mouse) && !Species::Rodent.may_be(&Species::Human));
    }

    #[test]
    fn raised_names_are_one_to_one() {
        let raised = humanize(&symbols(&["Cd8a", "Actb", "ACTb", "Cd8a"]));
        let names: Vec<&str> = raised.iter().map(Gene::name).collect();
        assert_eq!(names, ["CD8A", "", "", "CD8A"]);
    }

    #[test]
    fn orthologs_have_names_of_their_own() {
        let mouse = [
            Gene::new(None, Some("Trp53")),
            Gene::new(Some("ENSMUSG00000059552"), None),
            Gene::new(None, Some("Cd8a")),
            Gene::new(None, Some("0610005C13Rik")),
        ];
        let human = orthologs(&mouse);
        let names: Vec<&str> = human.iter().map(Gene::name).collect();
        assert_eq!(names, ["TP53", "TP53", "CD8A", ""]);
        assert_eq!(human[0].ensembl_id.as_deref(), Some("ENSG00000141510"));
    }
}
