package bios.worker.device.cpu;

import java.util.List;

/// Products that share a left factor: ys[i] ← s·x·bs[i].
record HostGroup(List<HostTensor> ys, HostTensor x, List<HostTensor> bs, float s) {}
