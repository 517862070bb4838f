//! A module's parameters by released name, out of it and into it.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::names::{ReleasedName, released_name};
use crate::error::{Error, Result};
use crate::linear::row_major;

/// A module's floating-point parameters by released name, in PyTorch's layout, as 32-bit floats on the host.
///
/// Works for any module made of this crate's parts; of a model whose parameters were replaced by their gradients it
/// gives the gradients.
pub fn named_tensors<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, TensorData> {
    let mut collector = Collector { path: Vec::new(), tensors: BTreeMap::new() };
    module.visit(&mut collector);
    collector.tensors
}

/// Shapes of a module's floating-point parameters by released name, in PyTorch's layout.
pub(super) fn shapes<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, Vec<usize>> {
    let mut surveyor = Surveyor { path: Vec::new(), shapes: BTreeMap::new() };
    module.visit(&mut surveyor);
    surveyor.shapes
}

/// Replaces a module's parameters by the tensors of their names; `used` receives these names.
///
/// The first parameter without a fitting tensor is the error.
pub(super) fn with_tensors<B: Backend, M: Module<B>>(
    module: M,
    tensors: &BTreeMap<String, TensorData>,
    used: &mut BTreeSet<String>,
) -> Result<M> {
    let mut replacer = Replacer { path: Vec::new(), tensors, used, error: None };
    let module = module.map(&mut replacer);
    match replacer.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

struct Collector {
    path: Vec<(String, String)>,
    tensors: BTreeMap<String, TensorData>,
}

impl<B: Backend> ModuleVisitor<B> for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let ReleasedName { name, transposed } = released_name(&self.path);
        let tensor = param.val();
        let tensor = if transposed { tensor.swap_dims(D - 2, D - 1) } else { tensor };
        self.tensors.insert(name, tensor.into_data().convert::<f32>());
    }
}

struct Surveyor {
    path: Vec<(String, String)>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl<B: Backend> ModuleVisitor<B> for Surveyor {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let released = released_name(&self.path);
        let shape = released_shape(param, &released);
        self.shapes.insert(released.name, shape);
    }
}

/// A parameter's shape in PyTorch's layout.
fn released_shape<B: Backend, const D: usize>(
    param: &Param<Tensor<B, D>>,
    released: &ReleasedName,
) -> Vec<usize> {
    let mut shape = param.lazy_shape().to_vec();
    if released.transposed {
        shape.swap(D - 2, D - 1);
    }
    shape
}

struct Replacer<'a> {
    path: Vec<(String, String)>,
    tensors: &'a BTreeMap<String, TensorData>,
    used: &'a mut BTreeSet<String>,
    error: Option<Error>,
}

impl<B: Backend> ModuleMapper<B> for Replacer<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let released = released_name(&self.path);
        let expected = released_shape(&param, &released);
        let ReleasedName { name, transposed } = released;
        let Some(data) = self.tensors.get(&name) else {
            self.error.get_or_insert(Error::MissingTensor { name });
            return param;
        };
        let found = data.shape.to_vec();
        if found != expected {
            self.error.get_or_insert(Error::WrongShape { name, found, expected });
            return param;
        }
        self.used.insert(name);
        param.map(|old| {
            let tensor = Tensor::from_data(data.clone(), &old.device());
            let tensor: Tensor<B, D> =
                if transposed { row_major(tensor.swap_dims(D - 2, D - 1)) } else { tensor };
            tensor.set_require_grad(old.is_require_grad())
        })
    }
}
