//! Objects by name: through soft links, which the HDF5 library does not follow, and behind the newest data layout, which it
//! does not know.

use super::checksum::checksum;
use super::fields::Fields;
use super::group;
use super::header::{LAYOUT, ObjectHeader};
use super::index;
use super::link::Target;
use super::superblock::Superblock;
use crate::h5::source::FileSource;

/// Soft links followed for one name; HDF5's own limit.
const MAX_LINKS: usize = 16;
/// The data layout message of HDF5 2.0 and the one before, which differ in nothing a reader of ours relies on.
const NEWEST_LAYOUT: u8 = 5;
const OLDER_LAYOUT: u8 = 4;

/// An object and the name it has without soft links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// Names from the root, without a soft link among them.
    pub(crate) name: String,
    /// Where its header is.
    pub(crate) address: u64,
}

/// Finds an object; `None` if no link leads to it.
///
/// Fails for links to other files, links in a circle, and damage.
pub(crate) fn locate(source: &FileSource, name: &str) -> Result<Option<Located>, String> {
    let root = Superblock::read(source)?.root;
    let mut trail: Vec<(String, u64)> = Vec::new();
    let mut names: Vec<String> = components(name);
    names.reverse();
    let mut n_links = 0;
    while let Some(name) = names.pop() {
        let parent = trail.last().map_or(root, |&(_, address)| address);
        let Some(links) = group::links(source, &ObjectHeader::read(source, parent)?.messages)? else {
            return Ok(None);
        };
        let Some(link) = links.into_iter().find(|link| link.name == name.as_bytes()) else { return Ok(None) };
        match link.target {
            Target::Object(address) => trail.push((name, address)),
            Target::Name(path) => {
                n_links += 1;
                if n_links > MAX_LINKS {
                    return Err("its soft links lead in a circle".into());
                }
                let path = String::from_utf8_lossy(&path).into_owned();
                if path.starts_with('/') {
                    trail.clear();
                }
                names.extend(components(&path).into_iter().rev());
            }
            Target::Elsewhere(what) => return Err(format!("it is {what}, which is not followed")),
        }
    }
    let address = trail.last().map_or(root, |&(_, address)| address);
    let name = trail.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join("/");
    Ok(Some(Located { name, address }))
}

/// A name in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) is_soft_link: bool,
}

/// The names in the group with its header at an address.
pub(crate) fn members(source: &FileSource, address: u64) -> Result<Vec<Member>, String> {
    let links = group::links(source, &ObjectHeader::read(source, address)?.messages)?.unwrap_or_default();
    let member = |link: super::link::Link| Member {
        is_soft_link: matches!(link.target, Target::Name(_)),
        name: String::from_utf8_lossy(&link.name).into_owned(),
    };
    Ok(links.into_iter().map(member).collect())
}

fn components(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_string).collect()
}

/// Bytes to see in place of the file's own, so that a dataset in the newest layout reads as one in the layout before.
///
/// The two messages have the same fields. They differ in how wide chunk sizes are in an index, and the indexes say that
/// themselves.
pub(crate) fn older_layout(source: &FileSource, address: u64) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let header = ObjectHeader::read(source, address)?;
    let is_newest = |body: &[u8]| body.first() == Some(&NEWEST_LAYOUT);
    let message = header.messages.iter().find(|message| message.kind == LAYOUT && is_newest(&message.body));
    let at = message.and_then(|message| message.at).ok_or("it has no layout of the newest version")?;
    let (start, mut block) = header.checked_block(source, at)?;
    let place = block.get_mut((at - start) as usize).ok_or("a header is cut short")?;
    *place = OLDER_LAYOUT;
    let sum = checksum(&block);
    block.extend_from_slice(&sum.to_le_bytes());
    Ok(vec![(start, block)])
}

/// A chunk in a version 2 B-tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeChunk {
    /// Position in units of chunks, one number a dimension.
    pub(crate) position: Vec<u64>,
    /// Where its bytes are.
    pub(crate) address: u64,
    /// How many they are; `None` for a chunk that is not filtered.
    pub(crate) size: Option<u64>,
    /// Filters that were not applied, one bit each.
    pub(crate) skipped: u32,
}

/// The chunks of a dataset with more than one growing dimension, whose index the library does not read.
pub(crate) fn tree_chunks(source: &FileSource, address: u64) -> Result<Vec<TreeChunk>, String> {
    const CHUNKED: u8 = 2;
    const TREE: u8 = 5;
    const ADDRESS: usize = 8;
    const MASK: usize = 4;
    let header = ObjectHeader::read(source, address)?;
    let message = header.messages.iter().find(|message| message.kind == LAYOUT).ok_or("it has no layout")?;
    let mut fields = Fields::new(&message.body);
    let (version, class) = (fields.byte()?, fields.byte()?);
    fields.skip(1)?;
    let (n_lengths, width) = (usize::from(fields.byte()?), usize::from(fields.byte()?));
    fields.skip(n_lengths * width)?;
    if !(OLDER_LAYOUT..=NEWEST_LAYOUT).contains(&version) || class != CHUNKED || fields.byte()? != TREE {
        return Err("its chunks are not in a tree".into());
    }
    fields.skip(6)?;
    // The last length is that of an element.
    let n_dimensions = n_lengths.saturating_sub(1);
    let records = index::records(source, fields.address()?)?;
    let chunks = records.iter().map(|record| {
        let bare = ADDRESS * (1 + n_dimensions);
        let mut fields = Fields::new(record);
        let address = fields.address()?;
        let (size, skipped) = match record.len().checked_sub(bare + MASK) {
            Some(width) => (Some(fields.number(width)?), fields.number(MASK)? as u32),
            None => (None, 0),
        };
        let position = (0..n_dimensions).map(|_| fields.number(8)).collect::<Result<_, _>>()?;
        Ok(TreeChunk { position, address, size, skipped })
    });
    chunks.collect()
}
