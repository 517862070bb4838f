//! The learning rate over the steps.

use std::f64::consts::PI;

use burn::lr_scheduler::LrScheduler;
use burn::record::Record;
use burn::tensor::backend::Backend;

use crate::config::Schedule;

/// Linear warm-up from 0, then constant or half a cosine: a function of the step alone.
#[derive(Debug, Clone)]
pub struct LearningRate {
    peak: f64,
    floor: f64,
    warmup_steps: usize,
    total_steps: usize,
    schedule: Schedule,
    step: usize,
}

impl LearningRate {
    /// The rate for a run of `total_steps` optimizer steps, of which `done` have been taken.
    ///
    /// - `peak`, `floor`: where the warm-up ends and the cosine ends
    pub fn new(
        peak: f64,
        floor: f64,
        schedule: Schedule,
        warmup_steps: usize,
        total_steps: usize,
        done: usize,
    ) -> Self {
        Self { peak, floor, warmup_steps, total_steps, schedule, step: done }
    }

    /// The rate of step `step`, counted from 1.
    pub fn at(&self, step: usize) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        match self.schedule {
            Schedule::Constant => self.peak,
            Schedule::Cosine => {
                let length = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
                let done = ((step - self.warmup_steps) as f64 / length).min(1.0);
                self.floor + (self.peak - self.floor) * 0.5 * (1.0 + (PI * done).cos())
            }
        }
    }
}

impl LrScheduler for LearningRate {
    type Record<B: Backend> = usize;

    fn step(&mut self) -> f64 {
        self.step += 1;
        self.at(self.step)
    }

    fn to_record<B: Backend>(&self) -> Self::Record<B> {
        self.step
    }

    fn load_record<B: Backend>(mut self, record: Self::Record<B>) -> Self
    where
        Self::Record<B>: Record<B>,
    {
        self.step = record;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(schedule: Schedule) -> LearningRate {
        LearningRate::new(1e-2, 1e-3, schedule, 4, 24, 0)
    }

    #[test]
    fn warm_up_rises_linearly_to_the_peak() {
        let mut rate = rate(Schedule::Constant);
        let seen: Vec<f64> = (0..6).map(|_| LrScheduler::step(&mut rate)).collect();
        let expected = [0.25e-2, 0.5e-2, 0.75e-2, 1e-2, 1e-2, 1e-2];
        assert!(seen.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{seen:?}");
    }

    #[test]
    fn the_cosine_passes_the_middle_and_ends_at_the_floor() {
        let rate = rate(Schedule::Cosine);
        assert!((rate.at(14) - 5.5e-3).abs() < 1e-12);
        assert!((rate.at(24) - 1e-3).abs() < 1e-12);
        assert!((rate.at(99) - 1e-3).abs() < 1e-12);
    }
}
