//! What a training begins with: fresh weights, or those of a checkpoint; the same on all ranks.

use std::path::{Path, PathBuf};

use burn::optim::Optimizer;
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder, RecorderError};
use burn::tensor::backend::AutodiffBackend;
use cellpatch_model::ModelBackend;

use super::Adam;
use crate::checkpoint::{self, Finish, TrainingState};
use crate::collective::{Collective, CollectiveError};
use crate::setup::{Trainee, TrainingSetup};
use crate::{Error, Result};

/// Weights, moments and position to begin with.
pub(super) struct Start<M, O> {
    pub(super) model: M,
    pub(super) optimizer: O,
    pub(super) state: TrainingState,
}

/// Weights and moments as bytes.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) model: Vec<u8>,
    /// None before the first step of a run.
    pub(super) optimizer: Option<Vec<u8>>,
}

impl Records {
    /// Of a model and its optimizer.
    ///
    /// - folder: for the error's text
    ///
    /// # Errors
    /// [`Error::Format`] when a record has no bytes.
    pub(super) fn of<M, B>(model: M, optimizer: &Adam<M, B>, folder: &Path) -> Result<Self>
    where
        B: AutodiffBackend + ModelBackend,
        B::InnerBackend: ModelBackend,
        M: Trainee<B>,
    {
        let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
        let unwritable = |reason| format_error("written", folder, &reason);
        let model = Recorder::<B>::record(&recorder, model.into_record(), ()).map_err(unwritable)?;
        let moments = Optimizer::<M, B>::to_record(optimizer);
        let optimizer = Recorder::<B>::record(&recorder, moments, ()).map_err(unwritable)?;
        Ok(Self { model, optimizer: Some(optimizer) })
    }

    /// Puts weights and moments back.
    ///
    /// - folder: where they are from, for the error's text
    ///
    /// # Errors
    /// [`Error::Format`] when a record is not one of this model.
    fn restore<M, B>(
        self,
        model: M,
        optimizer: Adam<M, B>,
        device: &B::Device,
        folder: &Path,
    ) -> Result<(M, Adam<M, B>)>
    where
        B: AutodiffBackend + ModelBackend,
        B::InnerBackend: ModelBackend,
        M: Trainee<B>,
    {
        let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
        let damaged = |reason| format_error("read", folder, &reason);
        let record = Recorder::<B>::load(&recorder, self.model, device).map_err(damaged)?;
        let model = model.load_record(record);
        let Some(moments) = self.optimizer else { return Ok((model, optimizer)) };
        let record = Recorder::<B>::load(&recorder, moments, device).map_err(damaged)?;
        let optimizer = Optimizer::<M, B>::load_record(optimizer, record);
        Ok((model, optimizer))
    }
}

fn format_error(action: &'static str, folder: &Path, reason: &RecorderError) -> Error {
    Error::Format { action, path: folder.to_path_buf(), reason: reason.to_string() }
}

/// Begins a run, or goes on with it. Rank 0 hands what it begins with to the others, which need neither the run's
/// folder nor the same random numbers.
///
/// - model: with fresh weights
pub(super) fn start<M, B>(
    device: &B::Device,
    model: M,
    optimizer: Adam<M, B>,
    setup: &TrainingSetup<M::Source>,
) -> Result<Start<M, Adam<M, B>>>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
    M: Trainee<B>,
{
    let Some(collective) = &setup.collective else { return own_start(device, model, optimizer, setup) };
    if collective.rank() != 0 {
        let (state, records) = receive(collective)?;
        let is_resumed = records.optimizer.is_some();
        let (model, optimizer) = records.restore(model, optimizer, device, Path::new("what rank 0 sent"))?;
        let model = if is_resumed { model.resumed(state.step) } else { model };
        return Ok(Start { model, optimizer, state });
    }
    let start = own_start(device, model, optimizer, setup)?;
    let mut records = Records::of(start.model.clone(), &start.optimizer, Path::new("the weights"))?;
    if !setup.resume {
        records.optimizer = None;
    }
    send(collective, &start.state, &records)?;
    Ok(start)
}

fn own_start<M, B>(
    device: &B::Device,
    model: M,
    optimizer: Adam<M, B>,
    setup: &TrainingSetup<M::Source>,
) -> Result<Start<M, Adam<M, B>>>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
    M: Trainee<B>,
{
    let (true, Some(run)) = (setup.resume, &setup.run) else {
        return Ok(Start { model, optimizer, state: TrainingState::start() });
    };
    let (checkpoint, passed_over) = checkpoint::newest(&run.checkpoints())?;
    for reason in passed_over {
        setup.observer.on_warning(&format!("passed over a damaged checkpoint: {reason}"));
    }
    checkpoint.fingerprint.check(&setup.fingerprint, &checkpoint.folder)?;
    let records = Records { model: checkpoint.model, optimizer: Some(checkpoint.optimizer) };
    let (model, optimizer) = records.restore(model, optimizer, device, &checkpoint.folder)?;
    let state = reopened(checkpoint.state, setup.epochs);
    Ok(Start { model: model.resumed(state.step), optimizer, state })
}

/// A finished run goes on when more epochs are asked for than it had.
fn reopened(mut state: TrainingState, epochs: usize) -> TrainingState {
    if state.finished == Some(Finish::Completed) && state.epoch <= epochs {
        state.finished = None;
    }
    state
}

/// Position, weights and moments, each but the last with its length before it.
fn send(collective: &Collective, state: &TrainingState, records: &Records) -> Result<()> {
    let state = serde_json::to_vec(state).map_err(|error| Error::Format {
        action: "written",
        path: PathBuf::from("the position"),
        reason: error.to_string(),
    })?;
    let mut bytes = Vec::new();
    for part in [&state, &records.model] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    bytes.extend(records.optimizer.iter().flatten());
    collective.broadcast(bytes)?;
    Ok(())
}

/// Reads what [`send`] sent.
fn receive(collective: &Collective) -> Result<(TrainingState, Records)> {
    let bytes = collective.broadcast(Vec::new())?;
    let unreadable = || {
        let reason = format!("{} bytes are not a start", bytes.len());
        Error::from(CollectiveError::OutOfStep { rank: 0, reason })
    };
    let (state, rest) = split_part(&bytes).ok_or_else(unreadable)?;
    let (model, optimizer) = split_part(rest).ok_or_else(unreadable)?;
    let state = serde_json::from_slice(state).map_err(|_| unreadable())?;
    let optimizer = (!optimizer.is_empty()).then(|| optimizer.to_vec());
    Ok((state, Records { model: model.to_vec(), optimizer }))
}

fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}
