;; The guest's jobs (see the crate guest-kernel) in WebAssembly. Its host's functions are its console and its file.
(module
  ;; One line, without its end: where it is, and its length.
  (import "host" "say" (func $say (param i32 i32)))
  ;; The next bytes of the file: where they go, and how many at most. The result is how many there were.
  (import "host" "read" (func $read (param i32 i32) (result i32)))

  (memory (export "memory") 4)
  (data (i32.const 0) "READY")
  ;; An answer begins with this; the line that it answers is put right behind it.
  (data (i32.const 11) "ECHO ")
  (global (export "line") i32 (i32.const 16))
  (global $buffer i32 (i32.const 0x10000))
  (global $piece i32 (i32.const 0x20000))

  (func (export "start")
    (call $say (i32.const 0) (i32.const 5)))

  (func (export "answer") (param $length i32) (param $steps i64)
    ;; Below everything else; what is stored has been computed.
    (i32.store (i32.const 0xfff0) (call $work (local.get $steps)))
    (call $say (i32.const 11) (i32.add (i32.const 5) (local.get $length))))

  ;; A chain of shifts (xorshift, 32 bits), each of which needs the one before.
  (func $work (param $steps i64) (result i32)
    (local $state i32)
    (local.set $state (i32.const 1))
    (block $done
      (loop $step
        (br_if $done (i64.eqz (local.get $steps)))
        (local.set $state (i32.xor (local.get $state) (i32.shl (local.get $state) (i32.const 13))))
        (local.set $state (i32.xor (local.get $state) (i32.shr_u (local.get $state) (i32.const 17))))
        (local.set $state (i32.xor (local.get $state) (i32.shl (local.get $state) (i32.const 5))))
        (local.set $steps (i64.sub (local.get $steps) (i64.const 1)))
        (br $step)))
    (local.get $state))

  ;; Reads the file to its end; the result is its size.
  (func (export "read") (result i64)
    (local $count i32)
    (local $bytes i64)
    (block $end
      (loop $next
        (local.set $count (call $read (global.get $buffer) (global.get $piece)))
        (br_if $end (i32.eqz (local.get $count)))
        (local.set $bytes (i64.add (local.get $bytes) (i64.extend_i32_u (local.get $count))))
        (br $next)))
    (local.get $bytes)))
