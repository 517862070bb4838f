//! Object headers: the list of messages that describes a group or a dataset (format specification, IV.A).

use std::collections::HashSet;

use super::checksum::checksum;
use super::fields::{Fields, read};
use crate::h5::source::FileSource;

pub(super) const NIL: u16 = 0x00;
pub(super) const DATASPACE: u16 = 0x01;
pub(super) const LINK_INFO: u16 = 0x02;
pub(super) const DATATYPE: u16 = 0x03;
pub(super) const FILL_VALUE: u16 = 0x05;
pub(super) const LINK: u16 = 0x06;
pub(super) const LAYOUT: u16 = 0x08;
pub(super) const GROUP_INFO: u16 = 0x0a;
pub(super) const ATTRIBUTE: u16 = 0x0c;
pub(super) const CONTINUATION: u16 = 0x10;
pub(super) const SYMBOL_TABLE: u16 = 0x11;
pub(super) const ATTRIBUTE_INFO: u16 = 0x15;
pub(super) const REFERENCE_COUNT: u16 = 0x16;

/// The message is a pointer to one that several objects share.
pub(super) const SHARED: u8 = 0x02;
/// The message never changes.
pub(super) const CONSTANT: u8 = 0x01;

/// Of a version 2 header: messages carry the order in which attributes were made.
const ORDERED: u8 = 0x04;
const PHASES: u8 = 0x10;
const TIMES: u8 = 0x20;
/// Of a version 2 header: what of the flags belongs to the object and not to the header's layout.
const KEPT_FLAGS: u8 = 0x0c;
/// Blocks and messages beyond these are a damaged file.
const MAX_BLOCKS: usize = 1 << 16;
const MAX_MESSAGES: usize = 1 << 20;

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u8,
    /// Creation index, in headers that track it.
    pub(super) order: u16,
    pub(super) body: Vec<u8>,
    /// Where the body is in the file, if it was read from one.
    pub(super) at: Option<u64>,
}

impl Message {
    pub(super) fn new(kind: u16, flags: u8, body: Vec<u8>) -> Self {
        Self { kind, flags, order: 0, body, at: None }
    }
}

/// The messages of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct ObjectHeader {
    /// Every message but padding and continuations.
    pub(super) messages: Vec<Message>,
    /// How many hard links lead to the object.
    pub(super) n_links: u32,
    /// Blocks with a checksum after them: where it begins to count, and where it is.
    checked: Vec<(u64, u64)>,
    /// Whether it is stored as version 2.
    second: bool,
    flags: u8,
    /// Access, modification, change and birth time, and when attributes move elsewhere.
    times: Vec<u8>,
    phases: Vec<u8>,
}

impl ObjectHeader {
    /// A header of a new object.
    pub(super) fn new(messages: Vec<Message>) -> Self {
        Self { messages, n_links: 1, ..Self::default() }
    }

    /// Reads a header with all its continuations.
    pub(super) fn read(source: &FileSource, address: u64) -> Result<Self, String> {
        if read(source, address, 4)? == b"OHDR" {
            return Self::read_second(source, address);
        }
        Self::read_first(source, address)
    }

    /// A version 1 header: 16 bytes, then messages padded to 8 bytes.
    fn read_first(source: &FileSource, address: u64) -> Result<Self, String> {
        let prefix = read(source, address, 16)?;
        let mut fields = Fields::new(&prefix);
        let version = fields.byte()?;
        if version != 1 {
            return Err(format!("no object header at {address}"));
        }
        fields.skip(3)?;
        let (n_links, size) = (fields.number(4)? as u32, fields.number(4)?);
        let mut header = Self { n_links, ..Self::default() };
        header.read_blocks(source, (address + 16, size), |fields| {
            let (kind, size, flags) = (fields.number(2)? as u16, fields.count(2)?, fields.byte()?);
            fields.skip(3)?;
            let body = fields.take(size)?.to_vec();
            Ok(Message { kind, flags, order: 0, body, at: None })
        })?;
        Ok(header)
    }

    /// A version 2 header: flags say what its prefix has; blocks end with a checksum.
    fn read_second(source: &FileSource, address: u64) -> Result<Self, String> {
        let flags = read(source, address, 6)?[5];
        let times = if flags & TIMES != 0 { 16 } else { 0 };
        let phases = if flags & PHASES != 0 { 4 } else { 0 };
        let width = 1 << (flags & 3);
        let prefix = read(source, address, 6 + times + phases + width)?;
        let mut fields = Fields::new(&prefix);
        fields.expect(b"OHDR\x02")?;
        fields.skip(1)?;
        let (times, phases) = (fields.take(times as usize)?.to_vec(), fields.take(phases as usize)?.to_vec());
        let size = fields.number(width as usize)?;
        let mut header = Self { n_links: 1, second: true, flags, times, phases, ..Self::default() };
        let first = address + prefix.len() as u64;
        header.checked.push((address, first.saturating_add(size)));
        let ordered = flags & ORDERED != 0;
        header.read_blocks(source, (first, size), |fields| {
            let (kind, size, flags) = (u16::from(fields.byte()?), fields.count(2)?, fields.byte()?);
            let order = if ordered { fields.number(2)? as u16 } else { 0 };
            Ok(Message { kind, flags, order, body: fields.take(size)?.to_vec(), at: None })
        })?;
        if let Some(count) = header.messages.iter().find(|message| message.kind == REFERENCE_COUNT) {
            let mut fields = Fields::new(&count.body);
            fields.skip(1)?;
            header.n_links = fields.number(4)? as u32;
        }
        Ok(header)
    }

    /// Reads messages of the first block and of those that continue it.
    fn read_blocks(
        &mut self,
        source: &FileSource,
        first: (u64, u64),
        next: impl Fn(&mut Fields<'_>) -> Result<Message, String>,
    ) -> Result<(), String> {
        // A message's kind, size and flags, and in version 1 padding: what is left of a block that is shorter is a gap.
        let least = if self.second { 4 + usize::from(self.flags & ORDERED != 0) * 2 } else { 8 };
        let mut blocks = vec![first];
        let mut seen = HashSet::new();
        while let Some((address, size)) = blocks.pop() {
            if !seen.insert(address) || seen.len() > MAX_BLOCKS {
                return Err("an object header continues in a circle".into());
            }
            let block = read(source, address, size)?;
            let mut fields = Fields::new(&block);
            while fields.rest().len() >= least {
                let mut message = next(&mut fields)?;
                let end = address + (block.len() - fields.rest().len()) as u64;
                message.at = Some(end - message.body.len() as u64);
                match message.kind {
                    NIL => {}
                    CONTINUATION => {
                        let mut fields = Fields::new(&message.body);
                        blocks.push(self.continuation(fields.address()?, fields.number(8)?)?);
                    }
                    _ => self.messages.push(message),
                }
                if self.messages.len() > MAX_MESSAGES {
                    return Err("an object header has too many messages".into());
                }
            }
        }
        Ok(())
    }

    /// The messages of a continuation block: in version 2 a signature precedes and a checksum follows them.
    fn continuation(&mut self, address: u64, size: u64) -> Result<(u64, u64), String> {
        if !self.second {
            return Ok((address, size));
        }
        let inner = size.checked_sub(8).ok_or("a continuation of an object header is too short")?;
        let first = address.checked_add(4).ok_or("an address overflows")?;
        self.checked.push((address, first.saturating_add(inner)));
        Ok((first, inner))
    }

    /// The bytes a checksum counts that include the one at `at`, and where they begin.
    pub(super) fn checked_block(&self, source: &FileSource, at: u64) -> Result<(u64, Vec<u8>), String> {
        let block = self.checked.iter().find(|(start, end)| (*start..*end).contains(&at));
        let &(start, end) = block.ok_or("it has no checksum")?;
        Ok((start, read(source, start, end - start)?))
    }

    /// Whether attributes carry the order in which they were made.
    pub(super) fn is_ordered(&self) -> bool {
        self.flags & ORDERED != 0
    }

    /// The header as version 2, in one block.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        const FOUR_BYTE_SIZE: u8 = 2;
        let mut block = Vec::new();
        for message in &self.messages {
            let kind = u8::try_from(message.kind).map_err(|_| "a message has a type of two bytes")?;
            let size = u16::try_from(message.body.len())
                .map_err(|_| "an attribute or a name of more than 64 KiB does not fit an object header")?;
            block.push(kind);
            block.extend_from_slice(&size.to_le_bytes());
            block.push(message.flags);
            if self.is_ordered() {
                block.extend_from_slice(&message.order.to_le_bytes());
            }
            block.extend_from_slice(&message.body);
        }
        let size = u32::try_from(block.len()).map_err(|_| "an object header has more than 4 GiB")?;
        let kept = self.flags & (KEPT_FLAGS | TIMES | PHASES);
        let mut bytes = b"OHDR\x02".to_vec();
        bytes.push(kept | FOUR_BYTE_SIZE);
        bytes.extend_from_slice(&self.times);
        bytes.extend_from_slice(&self.phases);
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.append(&mut block);
        bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
        Ok(bytes)
    }
}
