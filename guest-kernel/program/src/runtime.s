# The four functions that the compiler expects to find wherever it runs. In ring 3, so a string instruction is one
# instruction even where ring 0 is emulated.

.section .text.runtime, "ax", @progbits
.code64

.globl memset
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

.globl memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret

# Backwards only where the destination begins inside the source.
.globl memmove
memmove:
    mov rax, rdi
    mov rcx, rdx
    mov r8, rdi
    sub r8, rsi
    cmp r8, rdx
    jb 1f
    rep movsb
    ret
1:  lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret

.globl memcmp
.globl bcmp
memcmp:
bcmp:
    xor eax, eax
    mov rcx, rdx
    cmp rcx, rcx                # equal, should there be nothing to compare
    repe cmpsb
    je 1f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub ecx, eax
    mov eax, ecx
1:  ret
