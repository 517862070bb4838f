//! HDF5's types as the elements we read.

use hdf5_pure::{Datatype, DatatypeByteOrder, StringPadding};

use super::element::{Element, Member};

/// Widest text or record.
const MAX_ELEMENT_BYTES: usize = 1 << 20;

/// The element type of a dataset, or why it cannot be read.
pub(super) fn element(datatype: &Datatype) -> Result<Element, String> {
    let size = usize::try_from(datatype.type_size()).unwrap_or(usize::MAX);
    if size == 0 || size > MAX_ELEMENT_BYTES {
        return Err(format!("elements of {size} bytes are not supported"));
    }
    let other = |description: &str| Element::Other { size, description: description.to_string() };
    Ok(match datatype {
        Datatype::FixedPoint { byte_order, layout, .. } => {
            let whole = layout.bit_offset == 0 && usize::from(layout.bit_precision) == size * 8;
            match big_endian(*byte_order) {
                Some(big_endian) if whole && [1, 2, 4, 8].contains(&size) => {
                    Element::Integer { size, signed: layout.signed, big_endian }
                }
                _ => other("integers of an unusual width"),
            }
        }
        Datatype::FloatingPoint { byte_order, layout, .. } => {
            let ieee = match size {
                2 => (5, 10),
                4 => (8, 23),
                8 => (11, 52),
                _ => (0, 0),
            };
            match big_endian(*byte_order) {
                Some(big_endian) if (layout.exponent_size, layout.mantissa_size) == ieee => {
                    Element::Float { size, big_endian }
                }
                _ => other("floating-point numbers of an unusual format"),
            }
        }
        Datatype::Enumeration { base_type, members, .. } => {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            if size == 1 && names == ["FALSE", "TRUE"] { Element::Boolean } else { element(base_type)? }
        }
        Datatype::String { padding, .. } => {
            Element::FixedText { size, spaces: *padding == StringPadding::SpacePad }
        }
        Datatype::VariableLength { is_string: true, .. } => Element::VariableText,
        Datatype::Compound { members, .. } => Element::Compound {
            size,
            members: members
                .iter()
                .map(|member| {
                    let field = element(&member.datatype)?;
                    let offset = usize::try_from(member.byte_offset).unwrap_or(usize::MAX);
                    if offset.checked_add(field.size()).is_none_or(|end| end > size) {
                        return Err(format!("the field {:?} lies outside its record", member.name));
                    }
                    Ok(Member { name: member.name.clone(), offset, element: field })
                })
                .collect::<Result<_, String>>()?,
        },
        Datatype::Reference { .. } => other("references"),
        Datatype::Array { .. } => other("arrays"),
        Datatype::VariableLength { .. } => other("sequences of varying length"),
        _ => other("elements of an unusual type"),
    })
}

fn big_endian(order: DatatypeByteOrder) -> Option<bool> {
    match order {
        DatatypeByteOrder::LittleEndian => Some(false),
        DatatypeByteOrder::BigEndian => Some(true),
        DatatypeByteOrder::Vax => None,
    }
}
