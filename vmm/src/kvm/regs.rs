//! The boot CPU's registers: from [`EntryState`] to KVM's structures.

use boot::{DescriptorTable, EntryState, SegmentDescriptor};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::{KvmError, ioctl};

/// Loads all that the boot protocol states; the rest keeps KVM's reset values.
pub(super) fn load(vcpu: &VcpuFd, entry: &EntryState) -> Result<(), KvmError> {
    let mut special = vcpu.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
    special.cs = segment(&entry.segments.code);
    let data = segment(&entry.segments.data);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = segment(&entry.segments.task);
    special.gdt = table(entry.gdt);
    special.idt = table(entry.idt);
    special.cr0 = entry.control.cr0;
    special.cr3 = entry.control.cr3;
    special.cr4 = entry.control.cr4;
    special.efer = entry.control.efer;
    vcpu.set_sregs(&special).map_err(ioctl("KVM_SET_SREGS"))?;

    let registers = kvm_regs {
        rip: entry.registers.rip,
        rsp: entry.registers.rsp,
        rsi: entry.registers.rsi,
        rbx: entry.registers.rbx,
        rflags: entry.registers.rflags,
        ..Default::default()
    };
    vcpu.set_regs(&registers).map_err(ioctl("KVM_SET_REGS"))
}

fn segment(descriptor: &SegmentDescriptor) -> kvm_segment {
    kvm_segment {
        base: descriptor.base,
        limit: descriptor.limit,
        selector: descriptor.selector,
        type_: descriptor.kind,
        present: descriptor.present.into(),
        dpl: descriptor.dpl,
        db: descriptor.big.into(),
        s: descriptor.code_or_data.into(),
        l: descriptor.long.into(),
        g: descriptor.granularity.into(),
        ..Default::default()
    }
}

fn table(table: DescriptorTable) -> kvm_dtable {
    kvm_dtable { base: table.base, limit: table.limit, ..Default::default() }
}
