//! An amount of memory as users write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes, written `512M`, `2G` or `1.5GiB`; a number without a unit is MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "Written")]
pub(crate) struct MemorySize {
    pub bytes: usize,
}

/// As configuration files have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let end =
            trimmed.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let unit: f64 = match unit.trim().to_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "k" => 1024.0,
            "" | "m" => 1024.0 * 1024.0,
            "g" => 1024.0 * 1024.0 * 1024.0,
            "t" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            _ => return Err(format!("{text:?} has no unit of K, M, G or T")),
        };
        match number.parse::<f64>() {
            Ok(number) if number * unit < usize::MAX as f64 => Ok(Self { bytes: (number * unit) as usize }),
            _ => Err(format!("{text:?} is not a size such as 512M or 2G")),
        }
    }
}

impl TryFrom<Written> for MemorySize {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(mib) => mib.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<MemorySize> for String {
    fn from(size: MemorySize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes % (1 << 30), self.bytes % (1 << 20)) {
            (0, _) => write!(formatter, "{}G", self.bytes >> 30),
            (_, 0) => write!(formatter, "{}M", self.bytes >> 20),
            _ => write!(formatter, "{}K", self.bytes >> 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("256", 256 << 20, "256M"),
            ("2G", 2 << 30, "2G"),
            ("1.5GiB", 3 << 29, "1536M"),
            ("512 mb", 512 << 20, "512M"),
            ("20480k", 20 << 20, "20M"),
        ] {
            let size: MemorySize = text.parse().unwrap();
            assert_eq!((size.bytes, size.to_string().as_str()), (bytes, written), "{text}");
            assert_eq!(written.parse(), Ok(size));
        }
        for bad in ["", "G", "-1G", "1.2.3M", "5 potatoes", "1e3", "99999999999T"] {
            assert!(bad.parse::<MemorySize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_configuration_has_a_number_of_mib_or_a_text() {
        #[derive(Deserialize)]
        struct Settings {
            size: MemorySize,
        }
        for text in ["size = 300", "size = \"300M\""] {
            assert_eq!(toml::from_str::<Settings>(text).unwrap().size.bytes, 300 << 20, "{text}");
        }
    }
}
