//! The tensors of a model that another program computes.

use serde::Serialize;
use unsaid_document::{Document, Fields, Value};

/// One tensor of a [`crate::LayerSpec::External`]. It starts with numbers drawn uniformly from `mean ± spread`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExternalTensor {
    /// Its name, unique among its neighbours; `layers.0.<name>` in the layout.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// The middle of what it starts with.
    #[serde(skip_serializing_if = "is_0")]
    pub mean: f32,
    /// How far from it, at least 0.
    #[serde(skip_serializing_if = "is_0")]
    pub spread: f32,
}

// serde asks for a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_0(value: &f32) -> bool {
    *value == 0.0
}

impl Document for ExternalTensor {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let tensor = Self {
            name: f.required("name"),
            shape: f.required("shape"),
            mean: f.optional("mean").unwrap_or_default(),
            spread: f.optional("spread").unwrap_or_default(),
        };
        fields.finish().map(|()| tensor)
    }
}
