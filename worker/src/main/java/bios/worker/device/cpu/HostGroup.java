package bios.worker.device.cpu;

import bios.worker.device.Device;
import java.util.List;

/// Products of one left factor: ys[i] ← s·x·bs[i].
record HostGroup(List<HostTensor> ys, HostTensor x, List<HostTensor> bs, float s) {
    static HostGroup of(Device.Group group) {
        return new HostGroup(group.ys().stream().map(HostTensor::of).toList(), HostTensor.of(group.x()),
                group.bs().stream().map(HostTensor::of).toList(), group.s());
    }
}
