//! The device-generic tests in a browser's dedicated worker: the CPU (SIMD128) and WebGPU. There is no skip here: a browser
//! without WebGPU fails.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use unsaid_engine::{Device, GpuDevice, Kernel, Kernels};
use unsaid_tests as body;
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

async fn webgpu() -> GpuDevice {
    GpuDevice::request()
        .await
        .expect("the tests need a browser with WebGPU")
}

macro_rules! on_every_device {
    ($($name:ident),* $(,)?) => {
        mod cpu {
            $(#[wasm_bindgen_test::wasm_bindgen_test] async fn $name() { super::body::$name(&super::Device::Cpu).await; })*
        }
        mod webgpu {
            $(#[wasm_bindgen_test::wasm_bindgen_test] async fn $name() {
                super::body::$name(&super::Device::Gpu(super::webgpu().await)).await;
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

#[wasm_bindgen_test]
async fn an_example_adds_the_same_in_every_place_and_every_company() {
    body::an_example_adds_the_same_in_every_place_and_every_company().await;
}

#[wasm_bindgen_test]
async fn a_lost_gpu_goes_on_on_the_cpu() {
    body::a_lost_gpu_goes_on_on_the_cpu(webgpu).await;
}

#[wasm_bindgen_test]
async fn a_gpu_that_is_lost_in_private_training_has_the_epoch_done_again() {
    body::a_gpu_that_is_lost_in_private_training_has_the_epoch_done_again(webgpu().await).await;
}

#[wasm_bindgen_test]
async fn a_lost_gpu_with_a_large_model_does_few_steps_again() {
    body::a_lost_gpu_with_a_large_model_does_few_steps_again(webgpu().await).await;
}

/// The kernels for real GPUs, which a browser's software adapter does not choose.
#[wasm_bindgen_test]
async fn kernels_through_workgroup_memory_agree_with_the_cpu() {
    for kernel in [Kernel::Tile64, Kernel::Tile128] {
        let gpu = webgpu().await;
        gpu.use_kernels(Kernels::all(kernel));
        body::every_layer_agrees_with_the_cpu(&Device::Gpu(gpu)).await;
    }
}

/// Sums by subgroups, which a software adapter does not choose either.
#[wasm_bindgen_test]
async fn sums_by_subgroups_agree_with_the_cpu() {
    let gpu = webgpu().await;
    if !gpu.sums_by_subgroups().await.unwrap() {
        let name = gpu.name();
        wasm_bindgen_test::console_log!(
            "SKIPPED: {name} has no subgroups, or not in the order of invocations"
        );
        return;
    }
    let subgroups = true;
    gpu.use_kernels(Kernels {
        subgroups,
        ..gpu.kernels()
    });
    assert!(gpu.kernels().subgroups);
    let device = Device::Gpu(gpu);
    body::every_layer_agrees_with_the_cpu(&device).await;
    body::every_layer_clips_like_the_cpu(&device).await;
    body::same_seed_same_bits(&device).await;
}

/// These tests mean what they say only in a worker: a window has a document.
#[wasm_bindgen_test]
fn this_is_a_dedicated_worker() {
    let scope = js_sys::Reflect::get(&js_sys::global(), &"DedicatedWorkerGlobalScope".into()).unwrap();
    assert!(!scope.is_undefined());
}

/// The browser's own generator feeds the noise, and every call gives other bytes.
#[wasm_bindgen_test]
fn randomness_comes_from_the_browser() {
    let mut first = unsaid::random::Random::default();
    let mut second = unsaid::random::Random::default();
    let (a, b): ([u8; 32], [u8; 32]) = (first.bytes().unwrap(), second.bytes().unwrap());
    assert_ne!(a, b);
    assert_ne!(a, first.bytes().unwrap());
}
