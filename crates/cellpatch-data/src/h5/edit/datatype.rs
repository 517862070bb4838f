//! What is written: element types, arrays and attributes as the messages that describe them (format specification, IV.A.2).

use super::fields::UNDEFINED;
use super::header::{ATTRIBUTE, CONSTANT, DATASPACE, DATATYPE, FILL_VALUE, LAYOUT, Message, ObjectHeader};

/// The type of the elements of a new array or attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewType {
    /// IEEE 754, 4 bytes.
    Float32,
    /// IEEE 754, 8 bytes.
    Float64,
    /// Two's complement of 1, 2, 4 or 8 bytes.
    Signed(u8),
    /// h5py's boolean: an enumeration of FALSE and TRUE over one byte.
    Boolean,
    /// UTF-8 of any length, as references into a global heap.
    Text,
}

impl NewType {
    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float64 => 8,
            Self::Signed(size) => usize::from(size),
            Self::Boolean => 1,
            Self::Text => crate::h5::element::REFERENCE_SIZE,
        }
    }

    /// The datatype message.
    fn encode(self) -> Vec<u8> {
        // Version (1) and class, three bytes of class bits, size; then what the class needs.
        let message = |class: u8, bits: [u8; 2], properties: &[u8]| {
            let mut bytes = vec![0x10 | class, bits[0], bits[1], 0];
            bytes.extend_from_slice(&(self.size() as u32).to_le_bytes());
            bytes.extend_from_slice(properties);
            bytes
        };
        // A mantissa with an implied first bit; the sign's position. Properties: bit offset, precision, and of exponent
        // and mantissa position and size; the bias.
        let float = |sign: u8, fields: [u8; 6], bias: u32| {
            let mut properties = vec![0, 0];
            properties.extend_from_slice(&fields);
            properties.extend_from_slice(&bias.to_le_bytes());
            message(1, [0x20, sign], &properties)
        };
        match self {
            Self::Float32 => float(31, [32, 0, 23, 8, 0, 23], 127),
            Self::Float64 => float(63, [64, 0, 52, 11, 0, 52], 1023),
            Self::Signed(size) => message(0, [0x08, 0], &[0, 0, size * 8, 0]),
            Self::Boolean => {
                let mut properties = Self::Signed(1).encode();
                properties.extend_from_slice(b"FALSE\0\0\0TRUE\0\0\0\0\x00\x01");
                message(8, [2, 0], &properties)
            }
            // A zero-terminated UTF-8 string over unsigned bytes.
            Self::Text => message(9, [0x01, 0x01], &[0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0]),
        }
    }
}

/// The dataspace message; no dimensions are a scalar.
fn dataspace(shape: &[u64]) -> Vec<u8> {
    let mut bytes = vec![2, shape.len() as u8, 0, u8::from(!shape.is_empty())];
    shape.iter().for_each(|length| bytes.extend_from_slice(&length.to_le_bytes()));
    bytes
}

/// An attribute of a new or rewritten object.
#[derive(Debug, Clone)]
pub(crate) struct NewAttribute {
    pub(super) name: String,
    message: Vec<u8>,
}

impl NewAttribute {
    /// - `data`: the elements' bytes, little-endian
    pub(super) fn new(name: &str, of: NewType, shape: &[u64], data: &[u8]) -> Self {
        let (datatype, dataspace) = (of.encode(), dataspace(shape));
        let mut message = vec![3, 0];
        for length in [name.len() + 1, datatype.len(), dataspace.len()] {
            message.extend_from_slice(&(length as u16).to_le_bytes());
        }
        message.push(u8::from(!name.is_ascii()));
        message.extend_from_slice(name.as_bytes());
        message.push(0);
        message.extend_from_slice(&datatype);
        message.extend_from_slice(&dataspace);
        message.extend_from_slice(data);
        Self { name: name.to_string(), message }
    }

    /// The attribute in an object header.
    pub(super) fn message(&self) -> Message {
        Message::new(ATTRIBUTE, 0, self.message.clone())
    }
}

/// The header of an array stored in one piece at `address`.
pub(super) fn array_header(
    of: NewType,
    shape: &[u64],
    address: u64,
    attributes: &[NewAttribute],
) -> ObjectHeader {
    let n_bytes = shape.iter().product::<u64>() * of.size() as u64;
    let mut layout = vec![3, 1];
    layout.extend_from_slice(&if n_bytes == 0 { UNDEFINED } else { address }.to_le_bytes());
    layout.extend_from_slice(&n_bytes.to_le_bytes());
    // Version 2, allocated late, written if set, defined, of no bytes: what h5py writes for "zeros".
    let fill_value = vec![2, 2, 2, 1, 0, 0, 0, 0];
    let mut messages = vec![
        Message::new(DATASPACE, 0, dataspace(shape)),
        Message::new(DATATYPE, CONSTANT, of.encode()),
        Message::new(FILL_VALUE, CONSTANT, fill_value),
        Message::new(LAYOUT, 0, layout),
    ];
    messages.extend(attributes.iter().map(NewAttribute::message));
    ObjectHeader::new(messages)
}
