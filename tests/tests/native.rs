//! The device-generic tests on this machine: the CPU, and Vulkan where there is an adapter.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use pollster::block_on;
use unsaid_engine::{Device, GpuDevice};
use unsaid_tests as body;

/// A Vulkan device. Where there is none, the reason is printed and the test does nothing, unless `UNSAID_REQUIRE_GPU` is set.
fn vulkan() -> Option<GpuDevice> {
    match block_on(GpuDevice::request()) {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("UNSAID_REQUIRE_GPU").is_none() => {
            eprintln!(
                "SKIPPED on Vulkan (install a driver, such as mesa-vulkan-drivers, to run it): {error}"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

macro_rules! on_every_device {
    ($($name:ident),* $(,)?) => {
        mod cpu {
            $(#[test] fn $name() { super::block_on(super::body::$name(&super::Device::Cpu)); })*
        }
        mod gpu {
            $(#[test] fn $name() {
                if let Some(gpu) = super::vulkan() {
                    super::block_on(super::body::$name(&super::Device::Gpu(gpu)));
                }
            })*
        }
    };
}

on_every_device! {
    agrees_with_the_cpu,
    every_layer_agrees_with_the_cpu,
    every_layer_clips_like_the_cpu,
    a_language_model_learns_like_the_cpu,
    a_tied_table_learns_from_both_of_its_layers,
    learns_like_the_cpu,
    clipping_bounds_the_step,
    accumulated_batches_are_one_large_batch,
    fixed_steps_visit_the_examples_one_pass_after_the_other,
    scaffold_is_the_papers_algorithm,
    dropout_agrees_with_the_cpu,
    every_optimizer_agrees_with_the_cpu,
    an_optimizer_can_be_resumed,
    same_seed_same_bits,
    tiny_data_sets_train,
    a_loss_that_is_not_finite_stops,
    the_observer_can_stop,
    private_steps_agree_with_a_loop_over_single_examples,
    whatever_the_weights_an_example_adds_the_same_and_no_more_than_its_bound,
    an_example_above_its_bound_adds_nothing_whatever_its_layers,
    a_gradient_that_is_no_number_is_never_taken_for_short,
    a_correction_is_added_to_every_private_step,
    noise_is_added_to_the_sum_of_every_lot,
    what_does_not_learn_has_no_part_in_the_next_private_step,
    the_largest_noise_on_the_largest_sum_is_no_number_of_the_other_sign,
    private_training_follows_the_cpu,
    private_training_refuses_what_would_not_be_private,
    nothing_that_the_data_do_ends_private_training,
    nobody_is_told_that_there_are_no_examples,
}

/// Every kind of kernel, whatever the device prefers.
mod kernels {
    use unsaid_engine::{Device, Kernel, Kernels, Work};

    fn with(kernel: Kernel) {
        if let Some(gpu) = super::vulkan() {
            gpu.use_kernels(Kernels::all(kernel));
            let device = Device::Gpu(gpu);
            super::block_on(super::body::agrees_with_the_cpu(&device));
            super::block_on(super::body::every_layer_agrees_with_the_cpu(&device));
            super::block_on(super::body::every_layer_clips_like_the_cpu(&device));
            super::block_on(super::body::same_seed_same_bits(&device));
        }
    }

    #[test]
    fn all_are_timed_for_all_work_and_the_choice_stays() {
        let Some(gpu) = super::vulkan() else { return };
        let start = std::time::Instant::now();
        let now = || start.elapsed().as_secs_f64() * 1e3;
        let before = gpu.kernels();
        let times = super::block_on(gpu.time_kernels(&now)).unwrap();
        assert_eq!(gpu.kernels(), before);
        for work in Work::ALL {
            for kernel in Kernel::ALL {
                let mut own = times
                    .iter()
                    .filter(|time| (time.work, time.kernel) == (work, kernel));
                assert!(
                    own.next().is_some_and(|time| time.ms > 0.0 && time.ms < 1e5),
                    "{work:?} {kernel:?}: {times:?}"
                );
            }
        }
        // A software adapter is not timed: its kernels are known.
        assert_eq!(
            super::block_on(gpu.choose_kernels(&now)).unwrap().is_empty(),
            gpu.is_software()
        );
    }

    #[test]
    fn sums_by_subgroups() {
        let Some(gpu) = super::vulkan() else { return };
        let before = gpu.kernels();
        if !super::block_on(gpu.sums_by_subgroups()).unwrap() {
            eprintln!(
                "SKIPPED: {} has no subgroups, or not in the order of invocations",
                gpu.name()
            );
            return;
        }
        assert_eq!(gpu.kernels(), before);
        gpu.use_kernels(Kernels {
            subgroups: true,
            ..before
        });
        assert!(gpu.kernels().subgroups);
        let device = Device::Gpu(gpu);
        super::block_on(super::body::every_layer_agrees_with_the_cpu(&device));
        super::block_on(super::body::every_layer_clips_like_the_cpu(&device));
        super::block_on(super::body::a_language_model_learns_like_the_cpu(&device));
        super::block_on(super::body::private_training_follows_the_cpu(&device));
        super::block_on(super::body::same_seed_same_bits(&device));
    }

    #[test]
    fn direct() {
        with(Kernel::Direct);
    }

    #[test]
    fn tiles_of_64() {
        with(Kernel::Tile64);
    }

    #[test]
    fn tiles_of_128() {
        with(Kernel::Tile128);
    }
}

#[test]
fn an_example_adds_the_same_in_every_place_and_every_company() {
    block_on(body::an_example_adds_the_same_in_every_place_and_every_company());
}

#[test]
fn a_lost_gpu_goes_on_on_the_cpu() {
    if vulkan().is_some() {
        let gpu = async || GpuDevice::request().await.unwrap();
        block_on(body::a_lost_gpu_goes_on_on_the_cpu(gpu));
    }
}

#[test]
fn a_gpu_that_is_lost_in_private_training_has_the_epoch_done_again() {
    if let Some(gpu) = vulkan() {
        block_on(body::a_gpu_that_is_lost_in_private_training_has_the_epoch_done_again(gpu));
    }
}

#[test]
fn a_lost_gpu_with_a_large_model_does_few_steps_again() {
    if let Some(gpu) = vulkan() {
        block_on(body::a_lost_gpu_with_a_large_model_does_few_steps_again(gpu));
    }
}
