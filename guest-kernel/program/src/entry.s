# Everything that runs in ring 0: the two entry points, the descriptors and page tables they load, and the handlers of
# interrupts, exceptions and service calls. All else is Rust, in ring 3.
#
# Ring 0 is kept this small because a KVM without hardware support emulates it instruction by instruction (about 0.3 us
# each, and int3, xsave and others not at all), while ring 3 runs natively everywhere. The service call is a hlt in ring
# 3, hence #GP: syscall and int n do not work on such a KVM, a privileged instruction works on every one.
#
# The linker script puts this section 0x100 bytes above the image's base. Gates and the TSS descriptor split addresses
# into words that no relocation can express, so they are computed from that.

.set BASE_HIGH, 0x10            # the base, 0x100000, in units of 64 KiB
.set SECTION, 0x100

.set CODE0, 0x08                # selectors: they index gdt
.set TASK, 0x28
.set CODE3, 0x20 + 3
.set DATA3, 0x18 + 3

.set CR0_PG_WP_NE_ET_MP_PE, 0x80010033
.set CR4_PAE_OSFXSR_OSXMMEXCPT, 0x620
.set EFER, 0xc0000080
.set EFER_LME, 0x100
.set RFLAGS_IOPL3, 0x3002       # ring 3 may use every port; IF stays 0: interrupts are taken in the wait service only

.set SERVICES, 7
.set VECTORS, 48
.set VECTOR_GP, 13
.set VECTOR_DOORBELL_FIRST, 32  # timer 32, I/O APIC 33: see apic.rs
.set VECTOR_DOORBELL_LAST, 33
.set VECTOR_SPURIOUS, 47
.set LAPIC_EOI, 0xfee000b0

.set COM1, 0x3f8
.set COM1_LSR, 0x3fd
.set LSR_THRE, 0x20
.set DEBUG_READY, 0xf5          # mote's debug port

# boot_params, by the Linux kernel's Documentation/arch/x86/zero-page.rst, and hvm_start_info, by Xen's
# public/arch-x86/hvm/start_info.h. boot_info.rs reads the rest of them.
.set BOOT_PARAMS_RSDP, 0x70
.set BOOT_PARAMS_CMDLINE_HIGH, 0xc8
.set BOOT_PARAMS_CMDLINE, 0x228
.set START_INFO_CMDLINE, 24
.set START_INFO_RSDP, 32
.set RSDP_OEM_ID, 9             # as in acpi.rs

.set MODE, 0x65646f6d           # characters, first one lowest: "mode"
.set IS_REA, 0x6165723d         # "=rea"
.set DY, 0x7964                 # "dy"
.set SPACE, 0x20
.set MOTE, 0x45544f4d           # "MOTE"
.set SPACES, 0x2020
.set READY_LENGTH, 6

.section .entry, "awx", @progbits
section_start:

# ---- Entry points -------------------------------------------------------------------------------------------------

# The Linux 64-bit boot protocol: long mode, paging on, RSI = boot_params.
.code64
.globl entry64
entry64:
    mov eax, CR4_PAE_OSFXSR_OSXMMEXCPT
    mov cr4, rax
    mov eax, offset pml4
    mov cr3, rax
    lgdt [gdt_pointer]
    xor edi, edi
    mov eax, [rsi + BOOT_PARAMS_CMDLINE_HIGH]
    shl rax, 32
    mov ebx, [rsi + BOOT_PARAMS_CMDLINE]
    or rbx, rax
    mov rbp, [rsi + BOOT_PARAMS_RSDP]
    jmp enter

# PVH: 32-bit protected mode, paging off, EBX = start_info.
.code32
entry_pvh:
    mov eax, CR4_PAE_OSFXSR_OSXMMEXCPT
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, EFER
    mov eax, EFER_LME
    xor edx, edx
    wrmsr
    mov eax, CR0_PG_WP_NE_ET_MP_PE
    mov cr0, eax
    lgdt [gdt_pointer]
    ljmp CODE0, offset pvh64
.code64
pvh64:
    mov edi, 1
    mov esi, ebx
    mov rbx, [rsi + START_INFO_CMDLINE]
    mov rbp, [rsi + START_INFO_RSDP]

# EDI and RSI are the main program's first two arguments, RBX the address of the command line, RBP that of the RSDP.
enter:
    lidt [idt_pointer]
    mov esp, offset stack0_top
    mov eax, TASK
    ltr ax

# A command line that is empty or begins with the word mode=ready asks for READY and nothing before it. It is said from
# here: where ring 0 is emulated, entering ring 3 and leaving it for the first time takes more than ten times as long as
# these instructions. EDX tells the main program whether it is said.
    xor edx, edx
    mov rax, rbx
    or rax, rbp
    shr rax, 30                 # both in the first GiB, which is mapped?
    jnz enter_ring3
    cmp byte ptr [rbx], 0
    je say_ready
    cmp dword ptr [rbx], MODE
    jne enter_ring3
    cmp dword ptr [rbx + 4], IS_REA
    jne enter_ring3
    cmp word ptr [rbx + 8], DY
    jne enter_ring3
    cmp byte ptr [rbx + 10], SPACE
    ja enter_ring3
say_ready:
    cmp dword ptr [rbp + RSDP_OEM_ID], MOTE
    jne 1f
    cmp word ptr [rbp + RSDP_OEM_ID + 4], SPACES
    jne 1f
    out DEBUG_READY, al
1:  mov r9, rsi
    mov esi, offset ready_text
    mov edx, COM1
    mov ecx, READY_LENGTH
    rep outsb
    mov rsi, r9
    mov edx, 1

enter_ring3:
    mov rcx, rbx
    mov r8, rbp
    mov esp, offset main_frame
    iretq

# ---- Service calls ------------------------------------------------------------------------------------------------

# Ring 3 calls this with the service's number in EAX. The registers each service takes and spoils are in ring0.rs.
.globl ring0_call
ring0_call:
    hlt
    ret

general_protection:
    cmp qword ptr [rsp + 8], offset ring0_call
    jne vector_13
    add rsp, 8                  # the error code
    inc qword ptr [rsp]         # back to the ret after the hlt
    cmp eax, SERVICES
    jae vector_13_service
    jmp qword ptr [services + rax * 8]
vector_13_service:
    push 0
    jmp vector_13

# The ready mark: its byte on the debug port where there is one (R8 not 0), then the text as in write.
service_ready:
    test r8d, r8d
    jz service_write
    out DEBUG_READY, al
# RCX bytes from RSI to port DX. KVM hands string output over byte by byte, but without going back to the guest.
service_write:
    rep outsb
    iretq

# The same to COM1, waiting before each byte until the transmitter takes it.
service_write_polled:
    mov edx, COM1_LSR
1:  in al, dx
    test al, LSR_THRE
    jnz 2f
    pause
    jmp 1b
2:  mov edx, COM1
    outsb
    dec ecx
    jnz service_write_polled
    iretq

# One byte from port DX to AL.
service_read:
    in al, dx
    iretq

# Waits for an interrupt, unless one has come since the caller read the counter (ECX). IF is 0 in between, so none is lost.
service_wait:
    cmp dword ptr [interrupts], ecx
    jne 1f
    sti
    hlt
    cli
1:  iretq

# No descriptor table, no handler: an exception becomes a triple fault.
service_triple_fault:
    lidt [empty_pointer]
    ud2

# An instruction that a KVM which emulates ring 0 does not know: such a KVM gives up on the machine here.
service_breakpoint:
    int3
    iretq

# ---- Interrupts and exceptions ------------------------------------------------------------------------------------

doorbell:
    inc dword ptr [interrupts]
    push rax
    mov eax, LAPIC_EOI
    mov dword ptr [rax], 0
    pop rax
spurious:
    iretq

# Each exception pushes its error code (0 where the processor has none) and its vector.
.altmacro
.macro stub vector
vector_\vector:
    .if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30)
    .else
    push 0
    .endif
    push \vector
    jmp exception
.endm
.set number, 0
.rept VECTORS
    stub %number
    .set number, number + 1
.endr

# Goes to the report in ring 3 with what is known in its arguments. A second exception, one in the report, ends it.
exception:
    pop rdi                     # vector
    pop rsi                     # error code
    pop rdx                     # RIP
    pop rcx                     # CS
    mov r8, cr2
    cmp byte ptr [reporting], 0
    jne service_triple_fault
    mov byte ptr [reporting], 1
    mov esp, offset report_frame
    iretq

# ---- Data ---------------------------------------------------------------------------------------------------------

.balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # ring 0 code, 64 bits
    .quad 0x00cf93000000ffff    # ring 0 data
    .quad 0x00cff3000000ffff    # ring 3 data
    .quad 0x00affb000000ffff    # ring 3 code, 64 bits
    .word 103                   # the TSS: limit, base, type
    .word SECTION + tss - section_start
    .byte BASE_HIGH, 0x89, 0, 0
    .quad 0
gdt_end:

idt:
.macro gate target
    .word SECTION + \target - section_start
    .word CODE0
    .word 0x8e00                # present, interrupt gate, DPL 0
    .word BASE_HIGH
    .quad 0
.endm
.macro exception_gate vector
    gate vector_\vector
.endm
.set number, 0
.rept VECTORS
    .if number == VECTOR_GP
        gate general_protection
    .elseif (number >= VECTOR_DOORBELL_FIRST) && (number <= VECTOR_DOORBELL_LAST)
        gate doorbell
    .elseif number == VECTOR_SPURIOUS
        gate spurious
    .else
        exception_gate %number
    .endif
    .set number, number + 1
.endr
idt_end:

services:
    .quad service_ready
    .quad service_write
    .quad service_write_polled
    .quad service_read
    .quad service_wait
    .quad service_triple_fault
    .quad service_breakpoint

# What iretq takes: RIP, CS, RFLAGS, RSP (as after a call: 8 bytes off a multiple of 16), SS.
main_frame:
    .quad guest_main, CODE3, RFLAGS_IOPL3, stack3_top - 8, DATA3
report_frame:
    .quad exception_report, CODE3, RFLAGS_IOPL3, stack3_top - 8, DATA3

tss:
    .long 0
    .quad stack0_top            # RSP0
    .fill 92, 1, 0

gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word idt_end - idt - 1
    .quad idt
empty_pointer:
    .word 0
    .quad 0

ready_text:
    .ascii "READY\n"

.balign 4
.globl interrupts
interrupts:
    .long 0
reporting:
    .byte 0

# Ring 0 uses some 100 bytes: one frame, and one more for an interrupt that ends the hlt.
.balign 16
    .fill 512, 1, 0
stack0_top:

.section .stack, "aw", @progbits
    .fill 8192, 1, 0
stack3_top:

# ---- The PVH entry point, for the VMM -----------------------------------------------------------------------------

.section .note.Xen, "a", @note
.balign 4
    .long 4                     # size of the name
    .long 4                     # size of the value
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long entry_pvh

# ---- Page tables --------------------------------------------------------------------------------------------------

# The first GiB, identity, in 2 MiB pages (1 GiB pages are not to be had everywhere). memory.rs adds the rest when it is
# needed. Everything is open to ring 3. Accessed and dirty are set beforehand: nobody has to write them then.
.set TABLE, 0x27                # present, writable, user, accessed
.set PAGE_2M, 0xe7              # the same, dirty, large

.section .tables, "aw", @progbits
.balign 4096
.globl pml4
pml4:
    .quad pdpt + TABLE
    .fill 511, 8, 0
.globl pdpt
pdpt:
    .quad directory0 + TABLE
    .fill 511, 8, 0
directory0:
.set number, 0
.rept 512
    .quad (number << 21) + PAGE_2M
    .set number, number + 1
.endr
