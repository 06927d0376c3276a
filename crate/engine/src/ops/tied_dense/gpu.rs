//! GPU dispatches: those of a dense layer, whose kernel is the table `[vocabulary, units]` and which is run the other way round.

use super::TiedDense;
use crate::{
    backend::gpu::{OpBuffers, Planner},
    ops::{
        dense::{Dense, bias_gradient_gpu},
        ghost::{self, ProductTerm},
    },
};

impl TiedDense {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) {
        let &OpBuffers {
            x,
            y,
            dy,
            dx,
            parameters,
            d_parameters,
            shared,
            ..
        } = buffers;
        let vocabulary = self.embedding.vocabulary;
        let table = Dense {
            positions: self.positions,
            inputs: vocabulary,
            outputs: self.embedding.units,
            offset: self.embedding.offset,
            relu: false,
        };
        let forward = table.input_gradient_gpu(planner, [x, parameters, y], Some(self.bias));
        let input_gradient = dx.map(|dx| table.forward_gpu(planner, [dy, parameters, dx], None));
        let gradient = table.gradient_gpu(planner, [dy, x, d_parameters], None);
        let shape = [self.positions, vocabulary];
        let bias_gradient = bias_gradient_gpu(planner, [dy, d_parameters], shape, self.bias);
        planner.forward.extend(forward);
        planner
            .input_gradient
            .extend(input_gradient.into_iter().flatten());
        planner.parameter_gradient.extend(gradient);
        planner.parameter_gradient.push(bias_gradient);
        let shape = [self.positions, self.embedding.units, vocabulary];
        let term = ProductTerm {
            a: x,
            b: dy,
            shape,
            bias: true,
            window: None,
        };
        ghost::product_gpu(planner, &term);
        if let Some([tokens, vectors]) = shared {
            ghost::cross_gpu(planner, [x, dy, tokens, vectors], shape, self.embedding.time);
        }
        planner.scaled.push((dy.clone(), self.positions * vocabulary));
    }
}
