//! Which genes of a cell take part.

use serde::{Deserialize, Serialize};

use crate::GeneToken;

/// Some genes of a vocabulary. As JSON, the list of their tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u32>", into = "Vec<u32>")]
pub struct GeneSelection {
    /// By token.
    selected: Vec<bool>,
}

impl GeneSelection {
    /// The genes with the given tokens, in any order.
    pub fn new(tokens: impl IntoIterator<Item = GeneToken>) -> Self {
        let mut selected = Vec::new();
        for GeneToken(token) in tokens {
            let token = token as usize;
            if token >= selected.len() {
                selected.resize(token + 1, false);
            }
            selected[token] = true;
        }
        Self { selected }
    }

    /// Whether a gene is selected.
    pub fn contains(&self, gene: GeneToken) -> bool {
        self.selected.get(gene.0 as usize).copied().unwrap_or(false)
    }

    /// How many genes are selected.
    pub fn len(&self) -> usize {
        self.tokens().count()
    }

    /// Whether no gene is selected.
    pub fn is_empty(&self) -> bool {
        self.tokens().next().is_none()
    }

    /// The selected genes, ascending.
    pub fn tokens(&self) -> impl Iterator<Item = GeneToken> + '_ {
        let chosen = self.selected.iter().enumerate().filter(|&(_, &selected)| selected);
        chosen.map(|(token, _)| GeneToken(token as u32))
    }
}

impl From<Vec<u32>> for GeneSelection {
    fn from(tokens: Vec<u32>) -> Self {
        Self::new(tokens.into_iter().map(GeneToken))
    }
}

impl From<GeneSelection> for Vec<u32> {
    fn from(genes: GeneSelection) -> Self {
        genes.tokens().map(|token| token.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_a_list_of_tokens_and_comes_back() {
        let genes = GeneSelection::from(vec![7, 2, 7]);
        assert_eq!(genes.len(), 2);
        let json = serde_json::to_string(&genes).unwrap();
        assert_eq!(json, "[2,7]");
        assert_eq!(serde_json::from_str::<GeneSelection>(&json).unwrap(), genes);
        assert!(
            genes.contains(GeneToken(7)) && !genes.contains(GeneToken(3)) && !genes.contains(GeneToken(8))
        );
        assert!(GeneSelection::new([]).is_empty());
    }
}
