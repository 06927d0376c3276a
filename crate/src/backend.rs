//! Where to train: the person's choice, or the faster of what there is, measured on the task's own steps.

use unsaid_document::{Field, Value};
use unsaid_engine::{Device, EngineError, Examples, GpuDevice, time_steps};

use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    ports::{Clock, Listener, Ports, StepTimes},
    task::Task,
};

/// What the person asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// WebGPU where there is a real adapter and it is the faster one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// WebGPU, an error where there is none.
    WebGpu,
}

impl Field for BackendChoice {
    const EXPECTED: &'static str = "`auto`, `cpu` or `webgpu`";
    const NONE: Self = Self::Auto;
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "webgpu" => Some(Self::WebGpu),
            _ => None,
        }
    }
}

/// The chosen back end.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The device.
    pub device: Device,
}

impl Backend {
    /// `cpu` or `webgpu`.
    pub const fn name(&self) -> &'static str {
        match self.device {
            Device::Gpu(_) => "webgpu",
            _ => "cpu",
        }
    }
}

/// Timed pieces for each candidate; the median is compared.
const SAMPLES: usize = 3;

/// Chooses, and tells the page.
///
/// # Errors
/// [`ClientError::WebGpuUnavailable`] where WebGPU was asked for by name and there is none.
pub async fn choose<P: Ports>(
    ports: &P,
    choice: BackendChoice,
    task: &Task,
    parameters: &[f32],
    examples: &Examples,
    abort: &Abort,
) -> Result<Backend, ClientError> {
    let cpu = Device::Cpu;
    let (gpu, trial) = if examples.is_empty() {
        (None, Trial::NothingToDo)
    } else if choice == BackendChoice::Cpu {
        (None, Trial::Asked { webgpu: false })
    } else {
        let now = || ports.clock().now_ms();
        let gpu = abort.guard(ports.gpu()).await?;
        match gpu {
            Err(error) if choice == BackendChoice::WebGpu => {
                return Err(ClientError::WebGpuUnavailable(error.to_string()));
            }
            Err(error) => (None, Trial::NoGpu(error)),
            Ok(gpu) if choice == BackendChoice::WebGpu => {
                // A device that fails here fails in training, too, and it is told there.
                let _ = abort.guard(gpu.choose_kernels(&now)).await?;
                (Some(gpu), Trial::Asked { webgpu: true })
            }
            Ok(gpu) if gpu.is_software() => (Some(gpu), Trial::Emulated),
            Ok(gpu) => {
                let trial = trial(ports, task, parameters, examples, &gpu, abort).await?;
                (Some(gpu), trial)
            }
        }
    };
    let Verdict {
        webgpu,
        reason,
        times,
        cached,
    } = trial.verdict();
    let adapter = gpu.as_ref().map(|gpu| gpu.name().to_owned());
    let backend = Backend {
        device: gpu.filter(|_| webgpu).map_or(cpu, Device::Gpu),
    };
    ports.listener().hear(SessionEvent::Backend {
        backend: backend.name(),
        reason,
        adapter,
        cpu_ms_per_step: times.map(|times| times.cpu_ms),
        gpu_ms_per_step: times.map(|times| times.gpu_ms),
        cached,
        fallback: false,
    });
    Ok(backend)
}

/// The times of both back ends on the task's own steps: those of an earlier visit, or measured now and kept.
async fn trial<P: Ports>(
    ports: &P,
    task: &Task,
    parameters: &[f32],
    examples: &Examples,
    gpu: &GpuDevice,
    abort: &Abort,
) -> Result<Trial, ClientError> {
    let now = || ports.clock().now_ms();
    if let Some(times) = abort.guard(ports.recall_trial(task, gpu.name())).await? {
        // Where the CPU is the faster one, nobody needs to know which kernels the GPU would have used.
        if times.gpu_ms < times.cpu_ms {
            let _ = abort.guard(gpu.choose_kernels(&now)).await?;
        }
        return Ok(Trial::Known(times));
    }
    // A device that fails here fails in its trial, too, and it is told there.
    let _ = abort.guard(gpu.choose_kernels(&now)).await?;
    let time = async |device: &Device| -> Result<f64, EngineError> {
        time_steps(
            &task.model,
            parameters,
            examples,
            &task.timed(),
            device,
            SAMPLES,
            now,
        )
        .await
    };
    let cpu_ms = abort.guard(time(&Device::Cpu)).await??;
    let gpu_ms = abort.guard(time(&Device::Gpu(gpu.clone()))).await?;
    if let Ok(gpu_ms) = gpu_ms {
        let times = StepTimes { cpu_ms, gpu_ms };
        abort.guard(ports.keep_trial(task, gpu.name(), times)).await?;
    }
    Ok(Trial::Timed { cpu_ms, gpu_ms })
}

/// What is known of the two back ends when the choice is made.
#[derive(Debug)]
enum Trial {
    /// The person decided.
    Asked { webgpu: bool },
    /// There are no examples.
    NothingToDo,
    /// There is no GPU to be had.
    NoGpu(EngineError),
    /// The adapter is a program on this very CPU.
    Emulated,
    /// Both were timed on an earlier visit.
    Known(StepTimes),
    /// Milliseconds per step, or why the GPU took none.
    Timed {
        cpu_ms: f64,
        gpu_ms: Result<f64, EngineError>,
    },
}

/// Where to train, why, and the times that decided it.
#[derive(Debug, PartialEq)]
struct Verdict {
    webgpu: bool,
    reason: String,
    times: Option<StepTimes>,
    cached: bool,
}

impl Trial {
    /// The GPU only where it was asked for, or worked and was the faster one.
    fn verdict(self) -> Verdict {
        let cached = matches!(self, Self::Known(_));
        let (webgpu, reason, times) = match self {
            Self::Asked { webgpu } => (webgpu, "chosen by you".into(), None),
            Self::NothingToDo => (false, "there is nothing to train on".into(), None),
            Self::NoGpu(error) => (false, error.to_string(), None),
            Self::Emulated => (false, "the WebGPU adapter is emulated in software".into(), None),
            Self::Timed {
                gpu_ms: Err(error), ..
            } => (false, format!("WebGPU failed its trial: {error}"), None),
            Self::Timed {
                cpu_ms,
                gpu_ms: Ok(gpu_ms),
            }
            | Self::Known(StepTimes { cpu_ms, gpu_ms }) => {
                let reason = "the faster of the two on this task's own steps".into();
                (gpu_ms < cpu_ms, reason, Some(StepTimes { cpu_ms, gpu_ms }))
            }
        };
        Verdict {
            webgpu,
            reason,
            times,
            cached,
        }
    }
}

/// Whether the GPU is to blame for an error, so that the CPU can do the work.
pub(crate) const fn is_of_gpu(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::NoGpu(_)
            | EngineError::GpuMemory { .. }
            | EngineError::DeviceLost(_)
            | EngineError::Gpu(_)
            | EngineError::GpuLimit { .. }
    )
}

/// Works on `device`, or `instead`, where there is one, if the GPU is to blame for a failure: what came of it, and the failure.
///
/// # Errors
/// Every other one, and those of the work that was done instead.
pub(crate) async fn or_instead<D: ?Sized, T>(
    device: &D,
    instead: Option<&D>,
    mut work: impl AsyncFnMut(&D) -> Result<T, EngineError>,
) -> Result<(T, Option<String>), EngineError> {
    let (mut device, mut instead, mut failed) = (device, instead, None);
    loop {
        match (work(device).await, instead.take()) {
            (Err(error), Some(next)) if is_of_gpu(&error) => {
                failed = Some(error.to_string());
                device = next;
            }
            (result, _) => return result.map(|done| (done, failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;
    use unsaid_engine::SpecError;

    use super::*;

    fn timed(cpu_ms: f64, gpu_ms: f64) -> Verdict {
        Trial::Timed {
            cpu_ms,
            gpu_ms: Ok(gpu_ms),
        }
        .verdict()
    }

    fn gpu_errors() -> [EngineError; 5] {
        [
            EngineError::NoGpu("no adapter".into()),
            EngineError::GpuMemory { bytes: 1 << 40 },
            EngineError::DeviceLost("unplugged".into()),
            EngineError::Gpu("out of memory".into()),
            EngineError::GpuLimit {
                what: "the parameters",
                needed: 9,
                limit: 8,
            },
        ]
    }

    #[test]
    fn the_faster_one_is_chosen_with_the_times_that_say_so() {
        for (cpu_ms, gpu_ms, webgpu) in [
            (3.0, 2.9, true),
            (2.9, 3.0, false),
            (0.1, 100.0, false),
            (100.0, 0.1, true),
        ] {
            let times = StepTimes { cpu_ms, gpu_ms };
            for (verdict, cached) in [
                (timed(cpu_ms, gpu_ms), false),
                (Trial::Known(times).verdict(), true),
            ] {
                assert_eq!((verdict.webgpu, verdict.times), (webgpu, Some(times)));
                assert_eq!(verdict.cached, cached);
            }
        }
    }

    #[test]
    fn a_tie_or_a_time_that_is_none_leaves_the_work_on_the_cpu() {
        assert!(!timed(2.0, 2.0).webgpu);
        for (cpu_ms, gpu_ms) in [(2.0, f64::NAN), (f64::NAN, 2.0), (0.0, 0.0)] {
            assert!(!timed(cpu_ms, gpu_ms).webgpu, "{cpu_ms} {gpu_ms}");
        }
    }

    #[test]
    fn a_gpu_that_fails_leaves_the_work_on_the_cpu_and_the_reason_is_told() {
        for error in gpu_errors() {
            let why = error.to_string();
            let failed = Trial::Timed {
                cpu_ms: 1.0,
                gpu_ms: Err(error.clone()),
            };
            for verdict in [failed.verdict(), Trial::NoGpu(error).verdict()] {
                assert!(!verdict.webgpu && verdict.times.is_none(), "{verdict:?}");
                assert!(verdict.reason.contains(&why), "{verdict:?}");
            }
        }
    }

    #[test]
    fn an_emulated_gpu_is_passed_over_untimed_unless_it_was_asked_for_by_name() {
        let verdict = Trial::Emulated.verdict();
        assert!(!verdict.webgpu && verdict.times.is_none(), "{verdict:?}");
        assert!(verdict.reason.contains("emulated"), "{verdict:?}");
        assert!(Trial::Asked { webgpu: true }.verdict().webgpu);
        assert!(!Trial::NothingToDo.verdict().webgpu);
        assert!(!Trial::Asked { webgpu: false }.verdict().webgpu);
    }

    type Done = Result<(u8, Option<String>), EngineError>;

    /// Works on `webgpu`, which fails with `error`, and perhaps on `cpu` instead; and where it was tried.
    fn failing(error: &EngineError, instead: Option<&str>) -> (Done, Vec<String>) {
        let mut tried = Vec::new();
        let work = async |device: &str| {
            tried.push(device.to_owned());
            if device == "cpu" {
                Ok(7)
            } else {
                Err(error.clone())
            }
        };
        let result = block_on(or_instead("webgpu", instead, work));
        (result, tried)
    }

    #[test]
    fn work_that_the_gpu_fails_at_is_done_on_the_cpu_and_the_reason_is_told() {
        for error in gpu_errors() {
            let (result, tried) = failing(&error, Some("cpu"));
            assert_eq!(result, Ok((7, Some(error.to_string()))));
            assert_eq!(tried, ["webgpu", "cpu"]);
            // Where the GPU was asked for by name, its failure is the caller's to know.
            let (result, tried) = failing(&error, None);
            assert_eq!(result, Err(error));
            assert_eq!(tried, ["webgpu"]);
        }
    }

    #[test]
    fn work_that_fails_on_the_cpu_as_well_is_not_tried_for_ever() {
        let mut tries = 0;
        let error = EngineError::Gpu("no".into());
        let work = async |_: &str| -> Result<(), _> {
            tries += 1;
            Err(error.clone())
        };
        assert_eq!(
            block_on(or_instead("webgpu", Some("cpu"), work)),
            Err(error.clone())
        );
        assert_eq!(tries, 2);
    }

    #[test]
    fn only_faults_of_the_gpu_send_the_work_to_the_cpu() {
        assert!(gpu_errors().iter().all(is_of_gpu));
        let others = [
            EngineError::Stopped,
            EngineError::NonFinite { epoch: 1, step: 1 },
            EngineError::Spec(SpecError::TooLarge { limit: 1 }),
        ];
        for error in others {
            assert!(!is_of_gpu(&error), "{error}");
            let (result, tried) = failing(&error, Some("cpu"));
            assert_eq!((result, tried.len()), (Err(error), 1));
        }
    }
}
