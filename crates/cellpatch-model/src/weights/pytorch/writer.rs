//! Writes files as `torch.save` does.

use std::collections::BTreeMap;
use std::path::Path;

use super::{METADATA_KEY, STATE_DICT_KEYS};
use crate::error::Result;
use crate::weights::PthLayout;
use crate::weights::pickle::PickleWriter;
use crate::weights::replace::write_whole;
use crate::weights::tensors::NamedTensor;
use crate::weights::zip::{ALIGNMENT, ArchiveWriter};

/// The folder inside the archive.
const FOLDER: &str = "archive";

/// Writes a file; the same tensors, metadata and layout give the same bytes.
pub(in crate::weights) fn write(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    metadata: &BTreeMap<String, String>,
    layout: PthLayout,
) -> Result<()> {
    let prefix = if layout == PthLayout::Released { "module." } else { "" };
    let pickle = match layout {
        PthLayout::StateDict => PickleWriter::state_dict(prefix, tensors),
        PthLayout::ModelStateDict | PthLayout::Released => {
            PickleWriter::checkpoint(STATE_DICT_KEYS[0], prefix, tensors, METADATA_KEY, metadata)
        }
    };
    write_whole(path, |out| {
        let mut archive = ArchiveWriter::new(out);
        let mut member = |name: &str, bytes: &[u8]| archive.member(&format!("{FOLDER}/{name}"), bytes);
        member("data.pkl", &pickle)?;
        member(".format_version", b"1")?;
        member(".storage_alignment", ALIGNMENT.to_string().as_bytes())?;
        member("byteorder", b"little")?;
        for (index, tensor) in tensors.iter().enumerate() {
            member(&format!("data/{index}"), &tensor.bytes())?;
        }
        member("version", b"3\n")?;
        archive.finish().map(drop)
    })
}
