//! Sums over a workgroup by subgroups: the invocations that a device runs in step add up their numbers without workgroup memory.
//!
//! A shader that sums over a workgroup has one function for that, `total`. Where a GPU has subgroups in the order that this needs, the
//! one of `subgroups.wgsl` takes its place when the shader is compiled. Sums that are made in another order round differently, as
//! those of other kernels do. It is not timed: on the one GPU that both ways were measured on neither was ahead by more than the
//! noise of the measurement, but for steps with clipped gradients of small models (BENCHMARKS.md).

use super::{
    Access, GpuDevice, Grid, Planner,
    batches::{BatchUniform, Batches},
};
use crate::EngineError;

const SHADER: (&str, &str) = (
    "subgroups",
    include_str!(concat!(env!("OUT_DIR"), "/subgroups.wgsl")),
);
/// The shaders that sum over a workgroup, and the one that has the other way to do it.
const SUMMING: [&str; 4] = ["softmax_cross_entropy", "normalize", "ghost", SHADER.0];
/// How `total` begins, its last line, and how it ends, in the form that the build script gives it.
const BEGIN: &str = "fn total(lane:u32,own:vec2<f32>)-> vec2<f32>{\n";
const RETURN: &str = "\nreturn ";
const END: &str = "\n}\n";
/// What a browser must read before anything of subgroups; naga 30 knows no such directive, and asks for none.
const ENABLE: &str = if cfg!(target_arch = "wasm32") {
    "enable subgroups;\n"
} else {
    ""
};

/// Whether the shader of this name sums over a workgroup.
pub(super) fn is_summing(name: &str) -> bool {
    SUMMING.contains(&name)
}

/// The text of a shader that sums over a workgroup, with sums by subgroups.
pub(super) fn with_subgroups(source: &str) -> String {
    let [before, _, after] = around_total(source);
    let [_, total, _] = around_total(SHADER.1);
    // Not `concat`, nor slices that could fail: they weigh 2 kB in a browser's download.
    let mut text = String::from(ENABLE);
    [before, total, after].iter().for_each(|part| text.push_str(part));
    text
}

/// What is before `total`, the function itself, and what is behind it.
fn around_total(source: &str) -> [&str; 3] {
    // Not `find`: its search is for long texts, and weighs 1 kB.
    let place = |from: usize, part: &str| {
        let text = source.as_bytes().get(from..).unwrap_or_default();
        let mut windows = text.windows(part.len());
        let place = windows.position(|window| window == part.as_bytes());
        place.map_or(source.len(), |place| from + place)
    };
    let begin = place(0, BEGIN);
    let end = place(place(begin, RETURN), END) + END.len();
    [0..begin, begin..end, end..source.len()].map(|part| source.get(part).unwrap_or_default())
}

impl GpuDevice {
    /// Whether the device has subgroups, and lays them out so that `total` may be made of them: it is asked to add up numbers, once.
    ///
    /// # Errors
    /// As [`GpuDevice::choose_kernels`].
    pub async fn sums_by_subgroups(&self) -> Result<bool, EngineError> {
        if !self.has_subgroups() {
            return Ok(false);
        }
        self.begin_plan()?;
        let batches = Batches::new(self, 1)?;
        batches.write(self, &mut std::iter::once(BatchUniform::default()));
        let sums = self.upload("sums", &[0f32; 4])?;
        let mut planner = Planner::new(self, &batches.layout, 1, sums.clone(), sums.clone());
        planner.kernels.subgroups = true;
        let check = planner.dispatch(SHADER, "check", &[Access::Write], &[&sums], None, Grid::one());
        self.compiled().await;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            batches.record(&mut pass, 0, 1, &[check]);
        }
        let pending = self.submit(encoder).done(self);
        self.wait(pending).await?;
        Ok(self.read(&[(&sums, 2)]).await? == [2016.0, 64.0])
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The shaders of the build, by name.
    fn shaders() -> Vec<(String, String)> {
        let files = fs::read_dir(Path::new(env!("OUT_DIR"))).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let shaders = paths.filter(|path| path.extension().is_some_and(|end| end == "wgsl"));
        shaders
            .map(|path| {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    #[test]
    fn every_sum_over_a_workgroup_can_be_one_by_subgroups() {
        let mut exchanged = Vec::new();
        for (name, source) in shaders() {
            assert_eq!(
                source.matches(BEGIN).count(),
                usize::from(is_summing(&name)),
                "{name}"
            );
            if !is_summing(&name) {
                continue;
            }
            let text = with_subgroups(&source);
            assert_eq!(text.matches("subgroupAdd").count(), 2, "{name}");
            let module = naga::front::wgsl::parse_str(&text)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&text)));
            let flags = naga::valid::ValidationFlags::all();
            naga::valid::Validator::new(flags, naga::valid::Capabilities::SUBGROUP)
                .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
                .subgroup_operations(naga::valid::SubgroupOperationSet::all())
                .validate(&module)
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            exchanged.push(name);
        }
        assert_eq!(exchanged.len(), SUMMING.len(), "{exchanged:?}");
    }
}
