//! Released names of the model's parameters.

/// How a parameter is called and laid out in a released checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleasedName {
    pub(crate) name: String,
    /// PyTorch's linear layers hold their weight as [out, in], Burn's as [in, out].
    pub(crate) transposed: bool,
}

/// The released name of the parameter at a path of module fields.
///
/// - path: field names and container types from the model down, as Burn's visitors report them
pub(crate) fn released_name(path: &[(String, String)]) -> ReleasedName {
    let fields: Vec<&str> = path.iter().map(|(field, _)| field.as_str()).collect();
    let in_linear = path.last().is_some_and(|(_, container)| container == "Struct:Linear");
    let transposed = in_linear && fields.last() == Some(&"weight");
    ReleasedName { name: name(&fields), transposed }
}

fn name(fields: &[&str]) -> String {
    match fields {
        // Parts of CellPatch+STAGATE.
        ["reader", rest @ ..] => format!("model_head.{}", encoder(rest)),
        ["autoencoder", rest @ ..] => format!("model_STG.{}", rest.join(".")),
        ["to_genes", leaf] => format!("decoder_lin.{leaf}"),
        ["encoder", rest @ ..] => encoder(rest),
        ["decoder", "from_latent", leaf] => format!("decoder_reverse_projection.{leaf}"),
        ["decoder", "output", leaf] => format!("decoder_projection.{leaf}"),
        ["decoder", "cross", rest @ ..] => block("decoder_extract_blocks", "", rest),
        ["decoder", "self_blocks", index, rest @ ..] => {
            block("decoder_selfattn_blocks", &format!(".{index}"), rest)
        }
        ["from_latent", leaf] => format!("lp_linear_probe_0.{leaf}"),
        ["latent_norm", leaf] => format!("lp_norm.{}", norm(leaf)),
        ["unused_from_latent", leaf] => format!("decoder_reverse_projection.{leaf}"),
        ["hidden_1", leaf] => format!("lp_fc1.{leaf}"),
        ["hidden_2", leaf] => format!("lp_fc2.{leaf}"),
        ["output", leaf] => format!("lp_fc3.{leaf}"),
        other => encoder(other),
    }
}

/// Names of an encoder's fields, and of a reader's.
fn encoder(fields: &[&str]) -> String {
    match fields {
        ["patch_tokens"] => "pathway_token".into(),
        ["expression", _kind, leaf] => format!("count2vector.{leaf}"),
        ["expression_norm", leaf] => format!("count2vector_norm.{}", norm(leaf)),
        ["gene_embedding", leaf] => format!("gene2vector.{leaf}"),
        ["to_latent", leaf] => format!("encoder_projection.{leaf}"),
        ["cross", rest @ ..] => block("cross_extract_blocks", "", rest),
        ["self_blocks", index, rest @ ..] => block("self_extract_blocks", &format!(".{index}"), rest),
        other => other.join("."),
    }
}

fn block(released: &str, index: &str, fields: &[&str]) -> String {
    match fields {
        ["attention", rest @ ..] => format!("{released}_attn{index}.{}", rest.join(".")),
        ["attention_norm", leaf] => format!("{released}_attn_norm{index}.{}", norm(leaf)),
        ["mlp", "expand", leaf] => format!("{released}_mlp{index}.0.{leaf}"),
        ["mlp", "contract", leaf] => format!("{released}_mlp{index}.2.{leaf}"),
        ["mlp_norm", leaf] => format!("{released}_mlp_norm{index}.{}", norm(leaf)),
        other => format!("{released}{index}.{}", other.join(".")),
    }
}

fn norm(leaf: &str) -> &str {
    match leaf {
        "gamma" => "weight",
        "beta" => "bias",
        other => other,
    }
}
