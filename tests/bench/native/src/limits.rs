//! What the adapter can do at all: copies and fused multiply-adds.

use std::time::Instant;

use anyhow::{Context, Result};

/// The adapter, and its speed.
pub(crate) struct Limits {
    pub adapter: String,
    pub driver: String,
    pub copy_gb_per_s: f64,
    pub gflop_per_s: f64,
}

/// Numbers in a group of the shader's.
const LANES: u64 = 4;
const GROUP: u32 = 256;
const ROUNDS: u64 = 4096;
const CHAINS: u64 = 8;

struct Bench {
    device: wgpu::Device,
    queue: wgpu::Queue,
    module: wgpu::ShaderModule,
}

/// Measures with buffers of `bytes` and `groups` workgroups of multiply-adds.
pub(crate) async fn measure(software: bool) -> Result<Limits> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await?;
    let info = adapter.get_info();
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    let module = device.create_shader_module(wgpu::include_wgsl!("limits.wgsl"));
    let bench = Bench {
        device,
        queue,
        module,
    };
    let (bytes, groups): (u64, u32) = if software {
        (1 << 25, 8)
    } else {
        (1 << 28, 1 << 14)
    };
    let copy = bench.time("copy", bytes, 4096)?;
    let multiply = bench.time("multiply", u64::from(groups * GROUP) * 4 * LANES, groups)?;
    let flops = 2 * ROUNDS * CHAINS * LANES * u64::from(groups * GROUP);
    Ok(Limits {
        adapter: info.name,
        driver: format!("{} {}", info.driver, info.driver_info),
        copy_gb_per_s: 2.0 * bytes as f64 / copy / 1e9,
        gflop_per_s: flops as f64 / multiply / 1e9,
    })
}

impl Bench {
    /// Seconds for one dispatch of `entry`.
    fn time(&self, entry: &str, bytes: u64, groups: u32) -> Result<f64> {
        let pipeline = self
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &self.module,
                entry_point: Some(entry),
                compilation_options: Default::default(),
                cache: None,
            });
        let buffer = |usage| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
        };
        let storage = wgpu::BufferUsages::STORAGE;
        let (from, to) = (buffer(storage), buffer(storage));
        let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry {
                    binding: 0,
                    resource: from.as_entire_binding(),
                },
                wgpu::BindGroupEntry {
                    binding: 1,
                    resource: to.as_entire_binding(),
                },
            ],
        });
        let run = |count: usize| -> Result<f64> {
            let start = Instant::now();
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &bindings, &[]);
                for _ in 0..count {
                    pass.dispatch_workgroups(groups, 1, 1);
                }
            }
            self.queue.submit([encoder.finish()]);
            self.device
                .poll(wgpu::PollType::wait_indefinitely())
                .context("waiting for the GPU")?;
            Ok(start.elapsed().as_secs_f64())
        };
        run(1)?;
        let mut best = [f64::INFINITY; 2];
        for _ in 0..3 {
            best = [best[0].min(run(1)?), best[1].min(run(11)?)];
        }
        Ok((best[1] - best[0]) / 10.0)
    }
}
