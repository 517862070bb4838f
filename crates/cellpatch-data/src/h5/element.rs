//! Element types, and their bytes as Rust values.

use half::f16;

/// What one element of a dataset is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Element {
    /// A whole number of 1, 2, 4 or 8 bytes; enumerations count as their base type.
    Integer { size: usize, signed: bool, big_endian: bool },
    /// An IEEE 754 number of 2, 4 or 8 bytes.
    Float { size: usize, big_endian: bool },
    /// h5py's boolean: an enumeration of FALSE and TRUE over one byte.
    Boolean,
    /// Text of at most `size` bytes, padded with zeros or spaces.
    FixedText { size: usize, spaces: bool },
    /// A reference to text in a global heap.
    VariableText,
    /// A record.
    Compound { size: usize, members: Vec<Member> },
    /// Anything else, described for an error message.
    Other { size: usize, description: String },
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) element: Element,
}

/// Length (4), address (8) and index (4) of a text in a global heap, for files with 8-byte addresses.
pub(crate) const REFERENCE_SIZE: usize = 16;

impl Element {
    /// Bytes of one element.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Integer { size, .. }
            | Self::Float { size, .. }
            | Self::FixedText { size, .. }
            | Self::Compound { size, .. }
            | Self::Other { size, .. } => *size,
            Self::Boolean => 1,
            Self::VariableText => REFERENCE_SIZE,
        }
    }

    /// The type as numpy would name it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Integer { size, signed, .. } => {
                format!("{}int{}", if *signed { "" } else { "u" }, size * 8)
            }
            Self::Float { size, .. } => format!("float{}", size * 8),
            Self::Boolean => "bool".into(),
            Self::FixedText { .. } | Self::VariableText => "text".into(),
            Self::Compound { .. } => "records".into(),
            Self::Other { description, .. } => description.clone(),
        }
    }

    /// Whether elements are numbers or booleans.
    pub(crate) fn is_numeric(&self) -> bool {
        matches!(self, Self::Integer { .. } | Self::Float { .. } | Self::Boolean)
    }
}

/// `N` bytes in native order.
fn native<const N: usize>(bytes: &[u8], big_endian: bool) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(bytes);
    // Rust's from_le_bytes below: bring both orders to little-endian.
    if big_endian {
        value.reverse();
    }
    value
}

/// Decodes the numbers of one type and maps each.
macro_rules! each {
    ($bytes:expr, $big:expr, $type:ty, $map:expr) => {
        $bytes
            .chunks_exact(size_of::<$type>())
            .map(|chunk| ($map)(<$type>::from_le_bytes(native(chunk, $big))))
            .collect()
    };
}

/// Numbers as doubles. 64-bit integers beyond 2^53 round, which no count reaches.
pub(crate) fn to_f64(element: &Element, bytes: &[u8]) -> Result<Vec<f64>, String> {
    Ok(match *element {
        Element::Float { size: 2, big_endian } => each!(bytes, big_endian, f16, f64::from),
        Element::Float { size: 4, big_endian } => each!(bytes, big_endian, f32, f64::from),
        Element::Float { size: 8, big_endian } => each!(bytes, big_endian, f64, |value: f64| value),
        Element::Integer { size: 8, signed: false, big_endian } => {
            each!(bytes, big_endian, u64, |value: u64| value as f64)
        }
        Element::Integer { .. } | Element::Boolean => {
            to_integer(element, bytes)?.into_iter().map(|value| value as f64).collect()
        }
        _ => return Err(format!("it holds {}, not numbers", element.describe())),
    })
}

/// Whole numbers; floats are refused even where they are whole.
pub(crate) fn to_integer(element: &Element, bytes: &[u8]) -> Result<Vec<i64>, String> {
    Ok(match *element {
        Element::Boolean => bytes.iter().map(|&value| i64::from(value != 0)).collect(),
        Element::Integer { size: 1, signed: true, .. } => {
            bytes.iter().map(|&value| i64::from(value as i8)).collect()
        }
        Element::Integer { size: 1, signed: false, .. } => {
            bytes.iter().map(|&value| i64::from(value)).collect()
        }
        Element::Integer { size: 2, signed: true, big_endian } => each!(bytes, big_endian, i16, i64::from),
        Element::Integer { size: 2, signed: false, big_endian } => each!(bytes, big_endian, u16, i64::from),
        Element::Integer { size: 4, signed: true, big_endian } => each!(bytes, big_endian, i32, i64::from),
        Element::Integer { size: 4, signed: false, big_endian } => each!(bytes, big_endian, u32, i64::from),
        Element::Integer { size: 8, signed: true, big_endian } => {
            each!(bytes, big_endian, i64, |value: i64| value)
        }
        Element::Integer { size: 8, signed: false, big_endian } => {
            let values: Vec<u64> = each!(bytes, big_endian, u64, |value: u64| value);
            values
                .into_iter()
                .map(|value| i64::try_from(value).map_err(|_| format!("{value} is out of range")))
                .collect::<Result<_, _>>()?
        }
        _ => return Err(format!("it holds {}, not integers", element.describe())),
    })
}

/// Numbers that matrices are read as.
pub(crate) trait Number: Copy + Default + Send + 'static {
    /// Decodes as many elements as `numbers` has room for.
    fn decode(element: &Element, bytes: &[u8], numbers: &mut [Self]) -> Result<(), String>;

    /// Where the bytes of elements go that are these numbers as they are; [`check`](Self::check) must follow.
    fn place<'a>(element: &Element, numbers: &'a mut [Self]) -> Option<&'a mut [u8]>;

    /// Refuses numbers that were placed and cannot be.
    fn check(element: &Element, numbers: &[Self]) -> Result<(), String>;
}

/// Decodes elements of `N` bytes each.
fn decode_each<T, const N: usize>(bytes: &[u8], numbers: &mut [T], mut decode: impl FnMut([u8; N]) -> T) {
    for (number, &bytes) in numbers.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *number = decode(bytes);
    }
}

fn refuse_column(value: i64) -> String {
    format!("it holds column {value}")
}

/// Positions: whole numbers from 0 on.
impl Number for u32 {
    fn decode(element: &Element, bytes: &[u8], numbers: &mut [Self]) -> Result<(), String> {
        if let Element::Integer { size: 4, big_endian: false, .. } = *element {
            decode_each(bytes, numbers, Self::from_le_bytes);
            return Self::check(element, numbers);
        }
        // What scipy and others write where there are many entries.
        if let Element::Integer { size: 8, big_endian: false, .. } = *element {
            let mut high = 0;
            decode_each(bytes, numbers, |bytes| {
                let value = u64::from_le_bytes(bytes);
                high |= value >> 32;
                value as Self
            });
            if high == 0 {
                return Ok(());
            }
        }
        for (number, value) in numbers.iter_mut().zip(to_integer(element, bytes)?) {
            *number = Self::try_from(value).map_err(|_| refuse_column(value))?;
        }
        Ok(())
    }

    fn place<'a>(element: &Element, numbers: &'a mut [Self]) -> Option<&'a mut [u8]> {
        let as_they_are = matches!(element, Element::Integer { size: 4, big_endian: false, .. });
        (as_they_are && cfg!(target_endian = "little")).then(|| bytemuck::cast_slice_mut(numbers))
    }

    fn check(element: &Element, numbers: &[Self]) -> Result<(), String> {
        let signed = matches!(element, Element::Integer { signed: true, .. });
        let bits = numbers.iter().fold(0, |bits, &number| bits | number);
        let is_negative = |number: &&Self| **number >> 31 != 0;
        match (signed && bits >> 31 != 0).then(|| numbers.iter().find(is_negative)).flatten() {
            Some(&negative) => Err(refuse_column(i64::from(negative as i32))),
            None => Ok(()),
        }
    }
}

impl Number for f32 {
    fn decode(element: &Element, bytes: &[u8], numbers: &mut [Self]) -> Result<(), String> {
        if let Element::Float { size: 4, big_endian: false } = *element {
            decode_each(bytes, numbers, Self::from_le_bytes);
            return Ok(());
        }
        match *element {
            Element::Float { size: 8, big_endian: false } => {
                decode_each(bytes, numbers, |bytes| f64::from_le_bytes(bytes) as Self);
            }
            Element::Integer { size: 4, signed: true, big_endian: false } => {
                decode_each(bytes, numbers, |bytes| i32::from_le_bytes(bytes) as Self);
            }
            Element::Integer { size: 8, signed: true, big_endian: false } => {
                // By way of doubles, as everything else.
                decode_each(bytes, numbers, |bytes| i64::from_le_bytes(bytes) as f64 as Self);
            }
            _ => {
                for (number, value) in numbers.iter_mut().zip(to_f64(element, bytes)?) {
                    *number = value as Self;
                }
            }
        }
        Ok(())
    }

    fn place<'a>(element: &Element, numbers: &'a mut [Self]) -> Option<&'a mut [u8]> {
        let as_they_are = matches!(element, Element::Float { size: 4, big_endian: false });
        (as_they_are && cfg!(target_endian = "little")).then(|| bytemuck::cast_slice_mut(numbers))
    }

    /// Any is a number; which make sense is the matrix's to say.
    fn check(_: &Element, _: &[Self]) -> Result<(), String> {
        Ok(())
    }
}

/// Texts of fixed length, without their padding.
pub(crate) fn to_strings(element: &Element, bytes: &[u8]) -> Result<Vec<String>, String> {
    let Element::FixedText { size, spaces } = *element else {
        return Err(format!("it holds {}, not text", element.describe()));
    };
    Ok(bytes
        .chunks_exact(size)
        .map(|field| {
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(size);
            let text = String::from_utf8_lossy(&field[..end]);
            if spaces { text.trim_end_matches(' ').to_string() } else { text.into_owned() }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_width_and_order_decodes() {
        let int = |size, signed, big_endian| Element::Integer { size, signed, big_endian };
        assert_eq!(to_integer(&int(2, true, false), &[0xfe, 0xff, 1, 0]).unwrap(), [-2, 1]);
        assert_eq!(to_integer(&int(2, false, true), &[0x01, 0x02]).unwrap(), [258]);
        assert_eq!(to_integer(&int(1, true, false), &[0xff]).unwrap(), [-1]);
        assert_eq!(to_integer(&int(8, true, true), &(-7i64).to_be_bytes()).unwrap(), [-7]);
        assert!(to_integer(&int(8, false, false), &u64::MAX.to_le_bytes()).is_err());
        assert_eq!(to_f64(&int(8, false, false), &u64::MAX.to_le_bytes()).unwrap(), [u64::MAX as f64]);
        let float = |size, big_endian| Element::Float { size, big_endian };
        assert_eq!(to_f64(&float(2, false), &f16::from_f32(1.5).to_le_bytes()).unwrap(), [1.5]);
        assert_eq!(to_f64(&float(4, true), &2.25f32.to_be_bytes()).unwrap(), [2.25]);
        assert_eq!(to_f64(&Element::Boolean, &[0, 1]).unwrap(), [0.0, 1.0]);
        assert!(to_integer(&float(4, false), &[0; 4]).is_err());
    }

    /// Every type of numbers.
    fn numeric() -> impl Iterator<Item = Element> {
        let integers = [1, 2, 4, 8].into_iter().flat_map(|size| {
            [(false, false), (false, true), (true, false), (true, true)]
                .map(|(signed, big_endian)| Element::Integer { size, signed, big_endian })
        });
        let floats = [2, 4, 8]
            .into_iter()
            .flat_map(|size| [false, true].map(|big_endian| Element::Float { size, big_endian }));
        integers.chain(floats)
    }

    proptest! {
        #[test]
        fn numbers_of_a_matrix_are_those_of_the_general_way(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..160),
        ) {
            for element in numeric() {
                let count = bytes.len() / element.size();
                let bytes = &bytes[..count * element.size()];
                let (mut values, mut columns) = (vec![0f32; count], vec![0u32; count]);
                f32::decode(&element, bytes, &mut values).unwrap();
                let expected = to_f64(&element, bytes).unwrap();
                prop_assert!(
                    values.iter().zip(&expected).all(|(&found, &value)| found.to_bits() == (value as f32).to_bits()
                        || found.is_nan() && value.is_nan()),
                    "{element:?} {values:?} {expected:?}"
                );
                let found = u32::decode(&element, bytes, &mut columns).map(|()| columns.clone());
                let expected = to_integer(&element, bytes)
                    .and_then(|values| values.into_iter().map(|value| u32::try_from(value).map_err(|_| refuse_column(value))).collect());
                prop_assert_eq!(&found, &expected, "{:?}", element);
                if let Some(place) = u32::place(&element, &mut columns) {
                    place.copy_from_slice(bytes);
                    prop_assert_eq!(u32::check(&element, &columns).map(|()| columns), expected);
                }
                let decoded = values.clone();
                if let Some(place) = f32::place(&element, &mut values) {
                    place.copy_from_slice(bytes);
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    prop_assert_eq!(bits(&values), bits(&decoded));
                }
            }
        }
    }

    #[test]
    fn padding_of_fixed_text_is_dropped() {
        let text = |spaces| Element::FixedText { size: 4, spaces };
        assert_eq!(to_strings(&text(false), b"ab\0\0abcd").unwrap(), ["ab", "abcd"]);
        assert_eq!(to_strings(&text(true), b"ab  ").unwrap(), ["ab"]);
    }
}
