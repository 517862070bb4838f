//! Dividing inputs among processes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One of several processes that shard the same inputs, each some of them: `I/N`, with `I` from 1 to `N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPart {
    /// Which part, from 1.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl fmt::Display for ShardPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.index, self.count)
    }
}

impl FromStr for ShardPart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').map(|(index, count)| (index.trim().parse(), count.trim().parse()));
        match numbers {
            Some((Ok(index), Ok(count))) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => {
                let reason = "it must be I/N with I from 1 to N, such as 3/16".into();
                Err(Error::BadOption { option: "part", value: text.to_owned(), reason })
            }
        }
    }
}

impl ShardPart {
    /// Positions of the inputs that are this part's, ascending.
    ///
    /// - `sizes`: bytes of every input
    ///
    /// The largest input goes to the part that has least so far, then the next: no part has more than the mean plus one
    /// input. Every process comes to the same division from the same inputs in the same order.
    ///
    /// # Errors
    /// [`Error::BadOption`] if there are more parts than inputs.
    pub fn inputs(self, sizes: &[u64]) -> Result<Vec<usize>> {
        if self.count as usize > sizes.len() {
            let reason = format!("there are {} inputs, and a part has at least one", sizes.len());
            return Err(Error::BadOption { option: "part", value: self.to_string(), reason });
        }
        let mut largest_first: Vec<usize> = (0..sizes.len()).collect();
        largest_first.sort_by_key(|&input| std::cmp::Reverse(sizes[input]));
        // An empty file weighs as much as one byte, so that no part stays without any input.
        let mut loads = vec![0u64; self.count as usize];
        let mut own = Vec::new();
        for input in largest_first {
            let Some(lightest) = (0..loads.len()).min_by_key(|&part| loads[part]) else { break };
            loads[lightest] = loads[lightest].saturating_add(sizes[input].max(1));
            if lightest + 1 == self.index as usize {
                own.push(input);
            }
        }
        own.sort_unstable();
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_complete_and_balanced() {
        let sizes: Vec<u64> = (0..97u64).map(|input| 1_000 + input * input * 37 % 9_000).collect();
        let total: u64 = sizes.iter().sum();
        let mut seen = vec![0; sizes.len()];
        for index in 1..=8 {
            let own = ShardPart { index, count: 8 }.inputs(&sizes).unwrap();
            assert!(own.is_sorted());
            let load: u64 = own.iter().map(|&input| sizes[input]).sum();
            assert!(load.abs_diff(total / 8) < total / 8 / 20, "part {index} has {load} of {total} bytes");
            own.into_iter().for_each(|input| seen[input] += 1);
        }
        assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
        assert_eq!(ShardPart { index: 2, count: 3 }.inputs(&[0, 0, 0]).unwrap(), [1]);
    }

    #[test]
    fn a_part_is_written_as_i_of_n() {
        assert_eq!("3/16".parse::<ShardPart>().unwrap(), ShardPart { index: 3, count: 16 });
        for bad in ["", "3", "0/4", "5/4", "1/0", "a/b", "-1/2", "1/2/3"] {
            let error = bad.parse::<ShardPart>().unwrap_err();
            assert!(error.to_string().contains("I/N"), "{bad}: {error}");
        }
        assert!(ShardPart { index: 1, count: 3 }.inputs(&[5, 5]).is_err());
    }
}
