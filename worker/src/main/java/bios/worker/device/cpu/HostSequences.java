package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Device;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import java.util.List;

/// The sequences of a pass, as a list.
record HostSequences(List<Sequence> sequences, int rows) implements Sequences {

    static HostSequences of(List<Sequence> sequences) {
        int rows = 0;
        for (var s : sequences) {
            require(s.row() == rows && s.count() >= 1, "sequence of rows %d+%d after row %d", s.row(),
                    s.count(), rows);
            require(s.pages().length == 0 ? s.position() == 0 : s.position() >= 0 && s.position() + s.count()
                    <= (long) Device.BLOCK * s.pages().length, "%d pages for positions %d+%d",
                    s.pages().length, s.position(), s.count());
            rows += s.count();
        }
        return new HostSequences(List.copyOf(sequences), rows);
    }

    static HostSequences of(Sequences sequences) {
        if (sequences instanceof HostSequences own) return own;
        throw new IllegalArgumentException("sequences of another device");
    }
}
