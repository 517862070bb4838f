//! Gene names that a spreadsheet took for dates: `1-Mar`, `Sep-02`.

/// Months that gene names begin with, and the stems of symbols, old and new, each can have been.
const MONTHS: [(&str, &[&str]); 7] = [
    ("feb", &["FEB"]),
    ("mar", &["MARCH", "MARCHF", "MARC", "MTARC"]),
    ("apr", &["APR"]),
    ("sep", &["SEPT", "SEPTIN", "SEP"]),
    ("oct", &["OCT"]),
    ("nov", &["NOV"]),
    ("dec", &["DEC", "DELEC"]),
];

/// Families of genes that were renamed because of spreadsheets: old stem, new stem.
const RENAMED: [(&str, &str); 4] =
    [("MARCH", "MARCHF"), ("MARC", "MTARC"), ("SEPT", "SEPTIN"), ("DEC", "DELEC")];

/// The symbols a damaged name can have been; none for a name that is no date.
pub(super) fn candidates(name: &str) -> Vec<String> {
    let Some((first, second)) = name.split_once(['-', '/', ' ']) else { return Vec::new() };
    let (month, day) =
        if first.bytes().all(|byte| byte.is_ascii_digit()) { (second, first) } else { (first, second) };
    let Some(day) = day.parse::<u8>().ok().filter(|day| (1..=31).contains(day)) else { return Vec::new() };
    let month = month.to_ascii_lowercase();
    let stems = MONTHS.iter().find(|(name, _)| *name == month).map_or(&[][..], |&(_, stems)| stems);
    stems.iter().map(|stem| format!("{stem}{day}")).collect()
}

/// The other name of a gene of a renamed family: `MARCHF1` for `MARCH1`, and the other way round.
pub(super) fn renamed(symbol: &str) -> Option<String> {
    let at = symbol.find(|letter: char| letter.is_ascii_digit())?;
    let (stem, number) = symbol.split_at(at);
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let other = RENAMED.iter().find_map(|&(old, new)| match stem {
        _ if stem == old => Some(new),
        _ if stem == new => Some(old),
        _ => None,
    });
    other.map(|stem| format!("{stem}{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_the_names_they_can_have_been() {
        assert_eq!(candidates("2-Sep"), ["SEPT2", "SEPTIN2", "SEP2"]);
        assert_eq!(candidates("Sep-02"), candidates("2-Sep"));
        assert_eq!(candidates("1-Mar"), ["MARCH1", "MARCHF1", "MARC1", "MTARC1"]);
        for name in ["TP53", "HLA-A", "1-May", "40-Sep", "MT-ND1", "Sep-x", "-1"] {
            assert!(candidates(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn renamed_families_have_two_names() {
        assert_eq!(renamed("MARCH1").as_deref(), Some("MARCHF1"));
        assert_eq!(renamed("SEPTIN2").as_deref(), Some("SEPT2"));
        assert_eq!(renamed("MARCO"), None);
        assert_eq!(renamed("TP53"), None);
    }
}
