//! Python's unpickler, as far as data need it: a stack, marks on it, and a memo.

use std::collections::HashMap;

use super::globals::data_global;
use super::{Position, Value};
use crate::weights::fault::Fault;

/// How many values a pickle may make; a state dict takes about 15 a tensor, an optimizer 3 times as many.
const MOST_VALUES: usize = 4 << 20;

/// Where [`Value::Other`] lives: all of them are one.
const OTHER: Position = 0;

pub(super) struct Machine<'a> {
    input: &'a [u8],
    n_bytes: usize,
    values: Vec<Value>,
    stack: Vec<Position>,
    marks: Vec<usize>,
    memo: HashMap<u32, Position>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            n_bytes: input.len(),
            values: vec![Value::Other],
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// All values, and where the outermost one is.
    pub(super) fn run(mut self) -> Result<(Vec<Value>, Position), Fault> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok((self.values, root));
            }
            self.execute(opcode)?;
            if self.values.len() > MOST_VALUES {
                return Err(Fault::PickleTooLarge { found: self.values.len(), unit: "values" });
            }
        }
    }

    fn execute(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            // PROTO, FRAME
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            // NONE, NEWTRUE, NEWFALSE, BINFLOAT
            b'N' | 0x88 | 0x89 => self.stack.push(OTHER),
            b'G' => {
                self.take(8)?;
                self.stack.push(OTHER);
            }
            // SHORT_BINBYTES, BINBYTES
            b'C' => {
                let length = self.byte()?.into();
                self.take(length)?;
                self.stack.push(OTHER);
            }
            b'B' => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                self.take(length)?;
                self.stack.push(OTHER);
            }
            b'J' => {
                let integer = i32::from_le_bytes(self.array()?);
                self.push(Value::Integer(integer.into()));
            }
            b'K' => {
                let integer = self.byte()?;
                self.push(Value::Integer(integer.into()));
            }
            b'M' => {
                let integer = u16::from_le_bytes(self.array()?);
                self.push(Value::Integer(integer.into()));
            }
            0x8a => self.long()?,
            b'X' => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                self.push_text(length)?;
            }
            0x8c => {
                let length = self.byte()?.into();
                self.push_text(length)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' | b')' => self.push(Value::Sequence(Vec::new())),
            b't' | b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Sequence(items));
            }
            0x85..=0x87 => {
                let n_items = usize::from(opcode - 0x84);
                let start =
                    self.stack.len().checked_sub(n_items).ok_or_else(|| self.bad("its stack is empty"))?;
                let items = self.stack.split_off(start);
                self.push(Value::Sequence(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'c' => {
                let global = data_global(&self.line()?, &self.line()?)?;
                self.push(Value::Global(global));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name])
                else {
                    return Err(self.bad("a global without a name"));
                };
                let global = data_global(module, name)?;
                self.push(Value::Global(global));
            }
            // INST calls the class it names.
            b'i' => {
                let global = data_global(&self.line()?, &self.line()?)?;
                self.pop_to_mark()?;
                self.push(Value::Global(global));
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let is_dict = matches!(&self.values[function], Value::Global(name) if name == "collections.OrderedDict");
                self.push(if is_dict {
                    Value::Dict(Vec::new())
                } else {
                    Value::Call { function, arguments }
                });
            }
            // BUILD sets attributes, which no tensor of a state dict needs.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            b'q' => {
                let slot = self.byte()?.into();
                self.remember(slot)?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let slot = self.byte()?.into();
                self.recall(slot)?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }
            opcode => return Err(Fault::UnknownOpcode { opcode, at: self.at() }),
        }
        Ok(())
    }

    fn long(&mut self) -> Result<(), Fault> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        // What does not fit 64 bits is a magic number or a random state, never a tensor's size.
        let value = match wide.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Integer(i64::from_le_bytes(wide))
            }
            None => Value::Other,
        };
        self.push(value);
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn push_text(&mut self, length: usize) -> Result<(), Fault> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn pop(&mut self) -> Result<Position, Fault> {
        self.stack.pop().ok_or_else(|| self.bad("its stack is empty"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Position>, Fault> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Err(self.bad("a mark is missing")),
        }
    }

    fn append(&mut self, items: &[Position]) -> Result<(), Fault> {
        match self.stack.last().map(|&top| &mut self.values[top]) {
            Some(Value::Sequence(list)) => list.extend_from_slice(items),
            Some(Value::Other | Value::Call { .. }) => {}
            _ => return Err(self.bad("items are added to what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Position]) -> Result<(), Fault> {
        match self.stack.last().map(|&top| &mut self.values[top]) {
            Some(Value::Dict(dict)) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Some(Value::Other | Value::Call { .. }) => {}
            _ => return Err(self.bad("items are set on what is no dict")),
        }
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), Fault> {
        let top = *self.stack.last().ok_or_else(|| self.bad("its stack is empty"))?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), Fault> {
        let position =
            *self.memo.get(&slot).ok_or_else(|| self.bad("it recalls what it never remembered"))?;
        self.stack.push(position);
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.input.split_at_checked(n).ok_or_else(|| self.cut_short())?;
        self.input = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.input.split_first_chunk().ok_or_else(|| self.cut_short())?;
        self.input = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn line(&mut self) -> Result<String, Fault> {
        let end = self.input.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.cut_short())?;
        let line = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.byte()?;
        Ok(line)
    }

    fn at(&self) -> usize {
        self.n_bytes - self.input.len()
    }

    fn cut_short(&self) -> Fault {
        Fault::PickleCutShort { at: self.n_bytes }
    }

    fn bad(&self, what: &'static str) -> Fault {
        Fault::BadPickle { at: self.at(), what }
    }
}
