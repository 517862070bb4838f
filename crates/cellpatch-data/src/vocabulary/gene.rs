//! What a gene is called.

/// A gene's names; at least one of them is usually known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Gene {
    /// Ensembl gene id without its version, in upper case: `ENSG00000141510`.
    pub ensembl_id: Option<String>,
    /// Symbol as written: `TP53`.
    pub symbol: Option<String>,
}

impl Gene {
    /// A gene from the names found for it. A version is taken off the id; blank names count as absent, an id given as
    /// symbol counts as the id, and `SYMBOL_ENSG...`, as CELLxGENE writes symbols that several genes share, gives both.
    pub fn new(id: Option<&str>, symbol: Option<&str>) -> Self {
        let symbol = symbol.map(str::trim).filter(|symbol| !symbol.is_empty());
        let own_id = id.and_then(ensembl_id);
        let suffix_id = symbol.and_then(|symbol| symbol.rsplit_once('_')).and_then(|(_, id)| ensembl_id(id));
        let symbol_id = symbol.and_then(ensembl_id);
        Self {
            ensembl_id: own_id.or_else(|| symbol_id.clone()).or(suffix_id),
            symbol: symbol.filter(|_| symbol_id.is_none()).map(str::to_string),
        }
    }

    /// The symbol without the id that CELLxGENE appends where several genes share it: `C3` of `C3_ENSG00000125730`.
    pub(super) fn shared_symbol(&self) -> Option<&str> {
        let (symbol, id) = self.symbol.as_deref()?.rsplit_once('_')?;
        ensembl_id(id).map(|_| symbol)
    }

    /// The symbol if there is one, else the id, else nothing.
    pub fn name(&self) -> &str {
        self.symbol.as_deref().or(self.ensembl_id.as_deref()).unwrap_or_default()
    }
}

/// The Ensembl gene id a name is, without its version; `None` if it is none.
///
/// `ENS`, up to six letters of species, `G`, eleven digits, and maybe a version (`.3`) or `_PAR_Y`, which is kept: that
/// copy is a gene of its own.
pub(crate) fn ensembl_id(name: &str) -> Option<String> {
    let name = name.trim();
    // Most names are symbols: they need no copy.
    if !name.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("ENS")) {
        return None;
    }
    let name = name.to_ascii_uppercase();
    let rest = name.strip_prefix("ENS")?;
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let digits = rest[letters..].bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=7).contains(&letters) || !rest[..letters].ends_with('G') || digits != 11 {
        return None;
    }
    let (id, after) = rest.split_at(letters + digits);
    let version =
        after.strip_prefix('.').map_or(0, |after| 1 + after.bytes().take_while(u8::is_ascii_digit).count());
    match &after[version..] {
        "" if version != 1 => Some(format!("ENS{id}")),
        "_PAR_Y" => Some(format!("ENS{id}_PAR_Y")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ensembl_ids_lose_their_version_only() {
        assert_eq!(ensembl_id("ENSG00000141510.16").as_deref(), Some("ENSG00000141510"));
        assert_eq!(ensembl_id("ensmusg00000059552").as_deref(), Some("ENSMUSG00000059552"));
        assert_eq!(ensembl_id("ENSG00000182378.15_PAR_Y").as_deref(), Some("ENSG00000182378_PAR_Y"));
        for other in
            ["TP53", "ENST00000269305", "ENSG0000014151", "ENSG00000141510.", "ENSG00000141510-1", "", "ENSÄ"]
        {
            assert_eq!(ensembl_id(other), None, "{other}");
        }
    }

    #[test]
    fn a_shared_symbol_carries_its_id() {
        let gene = Gene::new(None, Some("MATR3_ENSG00000015479"));
        assert_eq!(gene.ensembl_id.as_deref(), Some("ENSG00000015479"));
        assert_eq!(gene.symbol.as_deref(), Some("MATR3_ENSG00000015479"));
        let bare = Gene::new(Some("ENSG00000015479.2"), Some("ENSG00000015479"));
        assert_eq!(bare, Gene { ensembl_id: Some("ENSG00000015479".into()), symbol: None });
    }
}
