// What the machine can do at all: a 6 × 8 micro-kernel on operands in the first cache and nothing around it.

/** The module's text: `micro(k, times)` computes C[6, 8] += A[k, 6]·B[k, 8] that often. */
export function yardstick(relaxed) {
  const sums = [...Array(12).keys()];
  const multiplyAdd = (a, b, sum) =>
    relaxed ? `(f32x4.relaxed_madd ${a} ${b} ${sum})` : `(f32x4.add ${sum} (f32x4.mul ${a} ${b}))`;
  const row = (i) => `
    (local.set $s (v128.load32_splat offset=${4 * i} (local.get $pa)))
    (local.set $c${2 * i} ${multiplyAdd('(local.get $s)', '(local.get $b0)', `(local.get $c${2 * i})`)})
    (local.set $c${2 * i + 1} ${multiplyAdd('(local.get $s)', '(local.get $b1)', `(local.get $c${2 * i + 1})`)})`;
  return `(module (memory 4)
  (func (export "micro") (param $k i32) (param $times i32)
    (local $left i32) (local $pa i32) (local $pb i32) (local $b0 v128) (local $b1 v128) (local $s v128)
    ${sums.map((i) => `(local $c${i} v128)`).join(' ')}
    (loop $again
      (local.set $left (local.get $k))
      (local.set $pa (i32.const 0))
      (local.set $pb (i32.const 16384))
      ${sums.map((i) => `(local.set $c${i} (v128.load offset=${65536 + 16 * i} (i32.const 0)))`).join('\n')}
      (loop $step
        (local.set $b0 (v128.load (local.get $pb)))
        (local.set $b1 (v128.load offset=16 (local.get $pb)))
        ${[0, 1, 2, 3, 4, 5].map(row).join('')}
        (local.set $pa (i32.add (local.get $pa) (i32.const 24)))
        (local.set $pb (i32.add (local.get $pb) (i32.const 32)))
        (br_if $step (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      ${sums.map((i) => `(v128.store offset=${65536 + 16 * i} (i32.const 0) (local.get $c${i}))`).join('\n')}
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))))`;
}
