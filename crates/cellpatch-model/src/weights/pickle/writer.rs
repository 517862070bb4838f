//! Writes the pickle `torch.save` writes for a state dict, instruction by instruction (protocol 2).
//!
//! Python's pickler remembers every text, tuple and object it makes in a numbered slot, whether it comes again or
//! not, and recalls what does. So does this one: for the same tensors the bytes are those of PyTorch.

use std::collections::{BTreeMap, HashMap};

use crate::weights::tensors::NamedTensor;

/// How many entries of a dict go into one instruction.
const BATCH: usize = 1_000;

/// A pickle being written.
#[derive(Debug, Default)]
pub(crate) struct PickleWriter {
    bytes: Vec<u8>,
    n_remembered: u32,
    /// Slots of globals and of the texts every storage is described with.
    slots: HashMap<&'static str, u32>,
}

impl PickleWriter {
    /// `OrderedDict` of tensors, the storage of the n-th being called n; each name gets the prefix in front.
    pub(crate) fn state_dict(prefix: &str, tensors: &[NamedTensor<'_>]) -> Vec<u8> {
        let mut pickle = Self::start();
        pickle.tensors(prefix, tensors);
        pickle.end()
    }

    /// A dict with the state dict under `key`, and the texts, if there are any, as a dict under `texts_key`.
    pub(crate) fn checkpoint(
        key: &'static str,
        prefix: &str,
        tensors: &[NamedTensor<'_>],
        texts_key: &'static str,
        texts: &BTreeMap<String, String>,
    ) -> Vec<u8> {
        let mut pickle = Self::start();
        pickle.empty_dict();
        if texts.is_empty() {
            pickle.text(key);
            pickle.tensors(prefix, tensors);
            pickle.op(b's');
        } else {
            pickle.op(b'(');
            pickle.text(key);
            pickle.tensors(prefix, tensors);
            pickle.text(texts_key);
            pickle.empty_dict();
            let texts: Vec<_> = texts.iter().collect();
            pickle.items(&texts, |pickle, _, (name, text)| {
                pickle.text(name);
                pickle.text(text);
            });
            pickle.op(b'u');
        }
        pickle.end()
    }

    fn start() -> Self {
        Self { bytes: vec![0x80, 2], ..Self::default() }
    }

    fn end(mut self) -> Vec<u8> {
        self.op(b'.');
        self.bytes
    }

    fn tensors(&mut self, prefix: &str, tensors: &[NamedTensor<'_>]) {
        self.empty_ordered_dict();
        self.items(tensors, |pickle, index, tensor| {
            pickle.text(&format!("{prefix}{}", tensor.name));
            pickle.tensor(index, tensor);
        });
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, backward_hooks)`
    fn tensor(&mut self, index: usize, tensor: &NamedTensor<'_>) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.op(b'(');
        self.storage(index, tensor.values.len());
        self.integer(0);
        self.integers(tensor.shape);
        self.integers(&tensor.strides());
        // False
        self.op(0x89);
        self.empty_ordered_dict();
        self.op(b't');
        self.remember();
        self.op(b'R');
        self.remember();
    }

    /// The persistent id `("storage", FloatStorage, key, device, number of elements)`
    fn storage(&mut self, index: usize, n_elements: usize) {
        self.op(b'(');
        self.text_again("storage");
        self.global("torch", "FloatStorage");
        self.text(&index.to_string());
        self.text_again("cpu");
        self.integer(n_elements);
        self.op(b't');
        self.remember();
        self.op(b'Q');
    }

    fn empty_ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.op(b')');
        self.op(b'R');
        self.remember();
    }

    fn empty_dict(&mut self) {
        self.op(b'}');
        self.remember();
    }

    /// Puts entries into the dict on top of the stack; `put` writes a key and a value.
    fn items<T>(&mut self, items: &[T], put: impl Fn(&mut Self, usize, &T)) {
        for (batch_index, batch) in items.chunks(BATCH).enumerate() {
            if batch.len() > 1 {
                self.op(b'(');
            }
            for (index, item) in batch.iter().enumerate() {
                put(self, batch_index * BATCH + index, item);
            }
            self.op(if batch.len() > 1 { b'u' } else { b's' });
        }
    }

    fn integers(&mut self, integers: &[usize]) {
        let tuple = match integers.len() {
            0 => return self.op(b')'),
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        };
        if tuple == b't' {
            self.op(b'(');
        }
        for &integer in integers {
            self.integer(integer);
        }
        self.op(tuple);
        self.remember();
    }

    fn integer(&mut self, integer: usize) {
        if let Ok(integer) = u8::try_from(integer) {
            self.bytes.extend([b'K', integer]);
        } else if let Ok(integer) = u16::try_from(integer) {
            self.op(b'M');
            self.bytes.extend(integer.to_le_bytes());
        } else if let Ok(integer) = i32::try_from(integer) {
            self.op(b'J');
            self.bytes.extend(integer.to_le_bytes());
        } else {
            // As few bytes as hold the number and its sign.
            let wide = (integer as u128).to_le_bytes();
            let length = (usize::BITS - integer.leading_zeros()) as usize / 8 + 1;
            self.bytes.extend([0x8a, length as u8]);
            self.bytes.extend(&wide[..length]);
        }
    }

    fn text(&mut self, text: &str) {
        self.op(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
        self.remember();
    }

    fn text_again(&mut self, text: &'static str) {
        if !self.recall(text) {
            self.text(text);
            self.slots.insert(text, self.n_remembered - 1);
        }
    }

    fn global(&mut self, module: &'static str, name: &'static str) {
        if !self.recall(name) {
            self.bytes.extend(format!("c{module}\n{name}\n").bytes());
            self.remember();
            self.slots.insert(name, self.n_remembered - 1);
        }
    }

    fn recall(&mut self, what: &str) -> bool {
        let Some(&slot) = self.slots.get(what) else {
            return false;
        };
        self.slot(b'h', b'j', slot);
        true
    }

    fn remember(&mut self) {
        self.slot(b'q', b'r', self.n_remembered);
        self.n_remembered += 1;
    }

    fn slot(&mut self, short: u8, long: u8, slot: u32) {
        match u8::try_from(slot) {
            Ok(slot) => self.bytes.extend([short, slot]),
            Err(_) => {
                self.op(long);
                self.bytes.extend(slot.to_le_bytes());
            }
        }
    }

    fn op(&mut self, opcode: u8) {
        self.bytes.push(opcode);
    }
}
