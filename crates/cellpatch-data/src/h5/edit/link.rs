//! Links: the names in a group and what they lead to.

use super::fields::{Fields, UNDEFINED};

const ORDERED: u8 = 0x04;
const TYPED: u8 = 0x08;
const CHARSET: u8 = 0x10;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The object with its header at this address.
    Object(u64),
    /// Another name in this file.
    Name(Vec<u8>),
    /// A name in another file, or a link of a user's own type: kept as it is.
    Elsewhere(&'static str),
}

/// One name in a group.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) name: Vec<u8>,
    pub(super) target: Target,
    /// Creation index, in groups that track it.
    pub(super) order: Option<u64>,
    /// The link message.
    pub(super) body: Vec<u8>,
}

impl Link {
    /// A link to an object.
    pub(super) fn to_object(name: &[u8], address: u64, order: Option<u64>) -> Self {
        let body = encode(name, None, order, &address.to_le_bytes());
        Self { name: name.to_vec(), target: Target::Object(address), order, body }
    }

    /// A soft link of an old group, which stores it without a message.
    pub(super) fn soft(name: &[u8], path: &[u8]) -> Self {
        let mut value = (path.len() as u16).to_le_bytes().to_vec();
        value.extend_from_slice(path);
        let body = encode(name, Some(1), None, &value);
        Self { name: name.to_vec(), target: Target::Name(path.to_vec()), order: None, body }
    }

    /// Reads a link message.
    pub(super) fn decode(body: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::new(body);
        if fields.byte()? != 1 {
            return Err("a link message has an unknown version".into());
        }
        let flags = fields.byte()?;
        let kind = if flags & TYPED != 0 { fields.byte()? } else { 0 };
        let order = if flags & ORDERED != 0 { Some(fields.number(8)?) } else { None };
        fields.skip(usize::from(flags & CHARSET != 0))?;
        let length = fields.count(1 << (flags & 3))?;
        let name = fields.take(length)?.to_vec();
        let target = match kind {
            0 => Target::Object(fields.address()?),
            1 => {
                let length = fields.count(2)?;
                Target::Name(fields.take(length)?.to_vec())
            }
            _ => Target::Elsewhere("a link to another file"),
        };
        Ok(Self { name, target, order, body: body.to_vec() })
    }
}

fn encode(name: &[u8], kind: Option<u8>, order: Option<u64>, value: &[u8]) -> Vec<u8> {
    const FOUR_BYTE_LENGTH: u8 = 2;
    let (width, width_flag) = if name.len() < 256 { (1, 0) } else { (4, FOUR_BYTE_LENGTH) };
    let mut flags = width_flag;
    flags |= if kind.is_some() { TYPED } else { 0 };
    flags |= if order.is_some() { ORDERED } else { 0 };
    flags |= if name.is_ascii() { 0 } else { CHARSET };
    let mut body = vec![1, flags];
    body.extend(kind);
    order.iter().for_each(|order| body.extend_from_slice(&order.to_le_bytes()));
    if !name.is_ascii() {
        body.push(1);
    }
    body.extend_from_slice(&(name.len() as u32).to_le_bytes()[..width]);
    body.extend_from_slice(name);
    body.extend_from_slice(value);
    body
}

/// The link info message: whether a group tracks the order of its links, and where it keeps them.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkInfo {
    flags: u8,
    /// The next creation index, if the group tracks it.
    pub(super) next_order: Option<u64>,
    /// The fractal heap of links, or [`UNDEFINED`] if they are messages of the header.
    pub(super) heap: u64,
    /// The heap's index by name.
    pub(super) names: u64,
}

impl LinkInfo {
    /// Of a group that keeps its links in its header and no account of their order.
    pub(super) fn plain() -> Self {
        Self { flags: 0, next_order: None, heap: UNDEFINED, names: UNDEFINED }
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::new(body);
        if fields.byte()? != 0 {
            return Err("a link info message has an unknown version".into());
        }
        let flags = fields.byte()?;
        let next_order = if flags & 1 != 0 { Some(fields.number(8)?) } else { None };
        Ok(Self { flags, next_order, heap: fields.address()?, names: fields.address()? })
    }

    /// The message of the same group with its links in the header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![0, self.flags];
        self.next_order.iter().for_each(|order| body.extend_from_slice(&order.to_le_bytes()));
        let n_addresses = if self.flags & 2 != 0 { 3 } else { 2 };
        (0..n_addresses).for_each(|_| body.extend_from_slice(&UNDEFINED.to_le_bytes()));
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_message_reads_as_it_was_written() {
        for (name, order) in [("obs", None), ("µ/β", Some(7)), (&*"x".repeat(300), Some(0))] {
            let link = Link::to_object(name.as_bytes(), 4096, order);
            let read = Link::decode(&link.body).unwrap();
            assert_eq!((read.name, read.target, read.order), (link.name, link.target, order));
        }
        let soft = Link::soft(b"alias", b"/obs/cell_type");
        assert_eq!(Link::decode(&soft.body).unwrap().target, Target::Name(b"/obs/cell_type".to_vec()));
        assert!(soft.body.ends_with(b"/obs/cell_type"));
    }

    #[test]
    fn a_cut_link_message_is_an_error() {
        let whole = Link::to_object(b"obs", 4096, Some(1)).body;
        assert!((0..whole.len()).all(|length| Link::decode(&whole[..length]).is_err()));
    }
}
