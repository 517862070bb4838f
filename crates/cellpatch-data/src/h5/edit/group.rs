//! A group read whole and written again with some of its links and attributes replaced.

use super::datatype::NewAttribute;
use super::fields::{Fields, UNDEFINED};
use super::fractal_heap::FractalHeap;
use super::header::{
    ATTRIBUTE, ATTRIBUTE_INFO, DATATYPE, GROUP_INFO, LINK, LINK_INFO, Message, ObjectHeader, REFERENCE_COUNT,
    SHARED, SYMBOL_TABLE,
};
use super::index;
use super::link::{Link, LinkInfo, Target};
use super::symbol_table;
use crate::h5::source::FileSource;

/// A group's links, and everything else its header says.
pub(super) struct GroupObject {
    header: ObjectHeader,
    info: LinkInfo,
    group_info: Vec<u8>,
    links: Vec<Link>,
}

impl GroupObject {
    /// A group without links.
    pub(super) fn new() -> Self {
        let header = ObjectHeader::new(Vec::new());
        Self { header, info: LinkInfo::plain(), group_info: vec![0, 0], links: Vec::new() }
    }

    /// Reads the group with its header at `address`, however it keeps its links and attributes.
    ///
    /// Fails for datasets, and for groups that several hard links lead to: a group that moves would leave them behind.
    pub(super) fn read(source: &FileSource, address: u64) -> Result<Self, String> {
        let mut header = ObjectHeader::read(source, address)?;
        if header.n_links > 1 {
            return Err("it has more than one name (hard links)".into());
        }
        if header.messages.iter().any(|message| message.flags & SHARED != 0) {
            return Err("it shares parts of its header with other objects".into());
        }
        let mut group = Self { header: ObjectHeader::default(), ..Self::new() };
        if header.messages.iter().any(|message| message.kind == DATATYPE) {
            return Err("it is one table, as AnnData wrote them before 0.7, not a group".into());
        }
        group.links = links(source, &header.messages)?.ok_or("it is not a group")?;
        let mut kept = Vec::new();
        for message in std::mem::take(&mut header.messages) {
            match message.kind {
                LINK_INFO => group.info = LinkInfo::decode(&message.body)?,
                GROUP_INFO => group.group_info = message.body,
                SYMBOL_TABLE | LINK | REFERENCE_COUNT => {}
                _ => kept.push(message),
            }
        }
        header.messages = kept;
        group.header = header;
        group.gather_attributes(source)?;
        Ok(group)
    }

    /// Brings attributes that are kept in a heap back into the header.
    fn gather_attributes(&mut self, source: &FileSource) -> Result<(), String> {
        let Some(at) = self.header.messages.iter().position(|message| message.kind == ATTRIBUTE_INFO) else {
            return Ok(());
        };
        let info = self.header.messages[at].body.clone();
        let mut fields = Fields::new(&info);
        fields.skip(1)?;
        let flags = fields.byte()?;
        fields.skip(usize::from(flags & 1) * 2)?;
        let first_address = info.len() - fields.rest().len();
        let (heap, names) = (fields.address()?, fields.address()?);
        if heap == UNDEFINED {
            return Ok(());
        }
        let heap = FractalHeap::read(source, heap)?;
        for record in index::records(source, names)? {
            // The object's id (8), the message's flags (1), its creation index (4) and a hash (4).
            let mut fields = Fields::new(&record);
            let (id, flags, order) = (fields.take(8)?, fields.byte()?, fields.number(4)? as u16);
            if flags & SHARED != 0 {
                return Err("it shares attributes with other objects".into());
            }
            let body = heap.object(id)?;
            self.header.messages.push(Message { kind: ATTRIBUTE, flags, order, body, at: None });
        }
        let info = &mut self.header.messages[at].body;
        info[first_address..].fill(0xff);
        Ok(())
    }

    /// Where a name leads, if the group has it.
    pub(super) fn target(&self, name: &str) -> Option<&Target> {
        self.links.iter().find(|link| link.name == name.as_bytes()).map(|link| &link.target)
    }

    /// Lets a name lead to an object, whatever it led to before.
    pub(super) fn put(&mut self, name: &str, address: u64) {
        if let Some(link) = self.links.iter_mut().find(|link| link.name == name.as_bytes()) {
            *link = Link::to_object(name.as_bytes(), address, link.order);
            return;
        }
        let order = self.info.next_order;
        self.info.next_order = order.map(|order| order + 1);
        self.links.push(Link::to_object(name.as_bytes(), address, order));
    }

    /// Adds or replaces an attribute.
    pub(super) fn set_attribute(&mut self, attribute: &NewAttribute) -> Result<(), String> {
        let mut message = attribute.message();
        let is_it = |other: &Message| {
            other.kind == ATTRIBUTE && attribute_name(&other.body).ok() == Some(attribute.name.as_bytes())
        };
        if let Some(old) = self.header.messages.iter_mut().find(|other| is_it(other)) {
            message.order = old.order;
            *old = message;
            return Ok(());
        }
        if self.header.is_ordered() {
            message.order = self.next_attribute_order()?;
        }
        self.header.messages.push(message);
        Ok(())
    }

    /// Takes the next creation index of attributes from the header's account of them.
    fn next_attribute_order(&mut self) -> Result<u16, String> {
        let attributes = self.header.messages.iter().filter(|message| message.kind == ATTRIBUTE);
        let next = attributes.map(|message| message.order.saturating_add(1)).max().unwrap_or(0);
        let info = self.header.messages.iter_mut().find(|message| message.kind == ATTRIBUTE_INFO);
        if let Some(info) = info.filter(|info| info.body.get(1).is_some_and(|flags| flags & 1 != 0)) {
            let place = info.body.get_mut(2..4).ok_or("a structure is cut short")?;
            place.copy_from_slice(&next.saturating_add(1).to_le_bytes());
        }
        Ok(next)
    }

    /// The group's header, its links in it.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let mut header = self.header.clone();
        header.messages.push(Message::new(LINK_INFO, 0, self.info.encode()));
        header.messages.push(Message::new(GROUP_INFO, 0, self.group_info.clone()));
        let links = self.links.iter().map(|link| Message::new(LINK, 0, link.body.clone()));
        header.messages.extend(links);
        header.encode()
    }
}

/// The links of the group with these messages, however it keeps them; `None` if it is no group.
pub(super) fn links(source: &FileSource, messages: &[Message]) -> Result<Option<Vec<Link>>, String> {
    let mut is_group = false;
    let mut links = Vec::new();
    for message in messages {
        match message.kind {
            SYMBOL_TABLE => {
                is_group = true;
                links.extend(symbol_table::links(source, &message.body)?);
            }
            LINK_INFO => {
                is_group = true;
                let info = LinkInfo::decode(&message.body)?;
                if info.heap != UNDEFINED {
                    let heap = FractalHeap::read(source, info.heap)?;
                    // A record is a hash (4) and the object's id.
                    for record in index::records(source, info.names)? {
                        links.push(Link::decode(&heap.object(record.get(4..).unwrap_or_default())?)?);
                    }
                }
            }
            LINK => links.push(Link::decode(&message.body)?),
            _ => {}
        }
    }
    Ok(is_group.then_some(links))
}

/// The name in an attribute message of any version, without its padding.
fn attribute_name(message: &[u8]) -> Result<&[u8], String> {
    let mut fields = Fields::new(message);
    let version = fields.byte()?;
    fields.skip(1)?;
    let length = fields.count(2)?;
    fields.skip(if version == 3 { 5 } else { 4 })?;
    let name = fields.take(length)?;
    Ok(name.split(|&byte| byte == 0).next().unwrap_or_default())
}
