//! A reader for the part of Python's pickle format that state dicts are written in.
//!
//! It builds values and runs nothing: a name that stands for a function is kept as a name, and a call of one as the
//! name with its arguments. Values live in one list and refer to each other by position, so that neither cycles nor
//! depth in a hostile file can exhaust the stack.
//!
//! The format is Python's `pickletools`; `torch.save` writes protocol 2.

use std::collections::HashMap;

/// Where a value lives in its [`Pickle`].
pub(super) type Position = usize;

/// A value a pickle holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// None, a float, or anything else no state dict's tensors need.
    Other,
    Integer(i64),
    Text(String),
    Sequence(Vec<Position>),
    Dict(Vec<(Position, Position)>),
    /// `module.name`
    Global(String),
    /// A global called with a tuple of arguments.
    Call {
        function: Position,
        arguments: Position,
    },
    /// Something that lives outside the pickle: a tensor's storage.
    Persistent(Position),
}

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Position,
}

impl Pickle {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        Machine {
            input: bytes,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
        .run()
    }

    pub(super) fn root(&self) -> Position {
        self.root
    }

    pub(super) fn value(&self, position: Position) -> &Value {
        &self.values[position]
    }

    /// The items of a tuple or list.
    pub(super) fn sequence(&self, position: Position) -> Option<&[Position]> {
        match self.value(position) {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// A dict's values under string keys.
    pub(super) fn entries(&self, position: Position) -> Option<Vec<(&str, Position)>> {
        let Value::Dict(items) = self.value(position) else {
            return None;
        };
        Some(items.iter().filter_map(|&(key, value)| Some((self.text(key)?, value))).collect())
    }

    pub(super) fn text(&self, position: Position) -> Option<&str> {
        match self.value(position) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn index(&self, position: Position) -> Option<usize> {
        match self.value(position) {
            Value::Integer(integer) => usize::try_from(*integer).ok(),
            _ => None,
        }
    }

    pub(super) fn global(&self, position: Position) -> Option<&str> {
        match self.value(position) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Position>,
    marks: Vec<usize>,
    memo: HashMap<u32, Position>,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Pickle, String> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok(Pickle { values: self.values, root });
            }
            self.execute(opcode)?;
        }
    }

    fn execute(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            // NONE, NEWTRUE, NEWFALSE, BINFLOAT
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'G' => {
                self.take(8)?;
                self.push(Value::Other);
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
                let start = self.stack.len().checked_sub(n_items).ok_or("its stack is empty")?;
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
                let name = format!("{}.{}", self.line()?, self.line()?);
                self.push(Value::Global(name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let name = format!("{module}.{name}");
                        self.push(Value::Global(name));
                    }
                    _ => return Err("a global without a name".into()),
                }
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
            unknown => {
                return Err(format!("its pickle has the opcode {unknown:#04x}, which no state dict needs"));
            }
        }
        Ok(())
    }

    fn long(&mut self) -> Result<(), String> {
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

    fn push_text(&mut self, length: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn pop(&mut self) -> Result<Position, String> {
        self.stack.pop().ok_or_else(|| "its stack is empty".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Position>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: &[Position]) -> Result<(), String> {
        match self.stack.last().map(|&top| &mut self.values[top]) {
            Some(Value::Sequence(list)) => list.extend_from_slice(items),
            Some(Value::Other | Value::Call { .. }) => {}
            _ => return Err("items are added to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Position]) -> Result<(), String> {
        match self.stack.last().map(|&top| &mut self.values[top]) {
            Some(Value::Dict(dict)) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Some(Value::Other | Value::Call { .. }) => {}
            _ => return Err("items are set on what is no dict".into()),
        }
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or("its stack is empty")?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), String> {
        let position = *self.memo.get(&slot).ok_or("it recalls what it never remembered")?;
        self.stack.push(position);
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.input.split_at_checked(n).ok_or("it ends too early")?;
        self.input = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.input.split_first_chunk().ok_or("it ends too early")?;
        self.input = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.input.iter().position(|&byte| byte == b'\n').ok_or("it ends too early")?;
        let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
        self.input = &self.input[end + 1..];
        Ok(line)
    }
}
