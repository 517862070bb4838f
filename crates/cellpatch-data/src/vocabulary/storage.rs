//! Vocabularies as files: the released dictionary in, Parquet in and out.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};

use super::{Gene, GeneToken, GeneVocabulary};
use crate::error::{Error, Result};
use crate::record_batches::{open_parquet, record_batches};

/// Key of the Parquet metadata that holds the capacity.
const CAPACITY: &str = "cellpatch.capacity";
/// Largest dictionary that is read, unpacked; the released one has 1 MB.
const MAX_JSON_BYTES: u64 = 1 << 28;

impl GeneVocabulary {
    /// Reads a dictionary of gene names to tokens, as CellPatch was released with: JSON, maybe gzip-compressed.
    ///
    /// Names may be symbols, Ensembl ids, or `SYMBOL_ENSG...`. Tokens must be 1, 2, ... without gaps.
    ///
    /// - `capacity`: rows of the gene table, padding included.
    ///
    /// # Errors
    /// If the file cannot be read, is no such dictionary, or does not fit the capacity.
    pub fn from_gene2tok(path: &Path, capacity: usize) -> Result<Self> {
        let invalid = |reason: String| Error::Invalid {
            path: path.to_path_buf(),
            dataset: "the gene dictionary".into(),
            reason,
        };
        let bytes = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
        let mut json = Vec::new();
        let read = if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).take(MAX_JSON_BYTES).read_to_end(&mut json)
        } else {
            bytes.as_slice().take(MAX_JSON_BYTES).read_to_end(&mut json)
        };
        read.map_err(|error| Error::io("unpack", path, error))?;
        let tokens: BTreeMap<String, u32> = serde_json::from_slice(&json)
            .map_err(|error| invalid(format!("it is not names to tokens: {error}")))?;
        let mut names: Vec<(u32, String)> = tokens.into_iter().map(|(name, token)| (token, name)).collect();
        names.sort_unstable();
        if names.len() + 1 > capacity {
            return Err(Error::VocabularyFull {
                path: path.to_path_buf(),
                new: names.len(),
                used: 1,
                capacity,
            });
        }
        let mut vocabulary = Self::new(capacity);
        for (expected, (token, name)) in (1..).zip(names) {
            if token != expected {
                return Err(invalid(format!("gene {name:?} has token {token}, expected {expected}")));
            }
            vocabulary.push(Gene::new(None, Some(&name)));
        }
        Ok(vocabulary)
    }

    /// Writes the vocabulary as Parquet: `token`, `ensembl_id`, `symbol`, tokens ascending, the capacity in the metadata.
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write_parquet(&self, path: &Path) -> Result<()> {
        let parquet = |reason: String| Error::Parquet { path: path.to_path_buf(), reason };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".vocabulary-");
        // Temporary files are for their owner alone; this one becomes a file to be shared, as far as the umask lets it.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder).map_err(|error| Error::io("create", path, error))?;
        let schema = Arc::new(Schema::new(vec![
            Field::new("token", DataType::UInt32, false),
            Field::new("ensembl_id", DataType::Utf8, true),
            Field::new("symbol", DataType::Utf8, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(self.iter().map(|(token, _)| token.0))),
            Arc::new(StringArray::from_iter(self.iter().map(|(_, gene)| gene.ensembl_id.as_deref()))),
            Arc::new(StringArray::from_iter(self.iter().map(|(_, gene)| gene.symbol.as_deref()))),
        ];
        let batch =
            RecordBatch::try_new(schema.clone(), columns).map_err(|error| parquet(error.to_string()))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(vec![KeyValue::new(
                CAPACITY.to_string(),
                self.capacity.to_string(),
            )]))
            .build();
        let mut writer = ArrowWriter::try_new(temporary.as_file(), schema, Some(properties))
            .map_err(|error| parquet(error.to_string()))?;
        writer.write(&batch).and_then(|()| writer.close()).map_err(|error| parquet(error.to_string()))?;
        temporary.as_file().sync_all().map_err(|error| Error::io("write", path, error))?;
        temporary.persist(path).map_err(|error| Error::io("rename", path, error.error))?;
        Ok(())
    }

    /// Reads what [`Self::write_parquet`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read or is no vocabulary.
    pub fn read_parquet(path: &Path) -> Result<Self> {
        let parquet = |reason: String| Error::Parquet { path: path.to_path_buf(), reason };
        let builder = open_parquet(path)?;
        let capacity = builder
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == CAPACITY))
            .and_then(|pair| pair.value.as_ref()?.parse().ok())
            .ok_or_else(|| parquet(format!("it is no vocabulary: its metadata has no {CAPACITY}")))?;
        let mut vocabulary = Self::new(capacity);
        for batch in record_batches(builder, path.to_path_buf())? {
            let batch = batch?;
            let column =
                |name: &str| batch.column_by_name(name).ok_or_else(|| parquet(format!("no column {name:?}")));
            let tokens = column("token")?.as_any().downcast_ref::<UInt32Array>();
            let ids = column("ensembl_id")?.as_any().downcast_ref::<StringArray>();
            let symbols = column("symbol")?.as_any().downcast_ref::<StringArray>();
            let (Some(tokens), Some(ids), Some(symbols)) = (tokens, ids, symbols) else {
                return Err(parquet("a column has an unexpected type".into()));
            };
            for ((token, id), symbol) in tokens.iter().zip(ids).zip(symbols) {
                let expected = vocabulary.len() as u32 + 1;
                if token != Some(expected) {
                    return Err(parquet(format!("token {token:?} where {expected} belongs")));
                }
                vocabulary
                    .push(Gene { ensembl_id: id.map(str::to_string), symbol: symbol.map(str::to_string) });
            }
        }
        if vocabulary.len() + 1 > capacity {
            return Err(parquet(format!("{} genes do not fit its capacity of {capacity}", vocabulary.len())));
        }
        Ok(vocabulary)
    }

    /// SHA-256 over tokens and names, in hexadecimal: equal exactly for equal vocabularies, whatever their capacity.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for (GeneToken(token), gene) in self.iter() {
            hasher.update(token.to_le_bytes());
            for name in [&gene.ensembl_id, &gene.symbol] {
                let name = name.as_deref().unwrap_or_default();
                hasher.update((name.len() as u64).to_le_bytes());
                hasher.update(name);
            }
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
