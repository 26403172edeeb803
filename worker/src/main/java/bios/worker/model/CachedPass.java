package bios.worker.model;

import static bios.protocol.Require.require;

import bios.worker.adapter.Adapter;
import bios.worker.device.Device;
import bios.worker.device.HostArray;
import bios.worker.device.PagePool;
import bios.worker.device.Sequence;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// A pass over the next tokens of cached sequences, on the host: everything that the device needs for it,
/// checked and laid out for an upload.
public final class CachedPass {
    private final List<Sequence> sequences = new ArrayList<>();
    private final List<Slot> slots;
    private final PagePool pages;
    private final int[] tokens;
    private final int[] positions;

    CachedPass(List<SequenceInput> inputs, ModelSpec spec) {
        int rows = inputs.stream().mapToInt(i -> i.tokens().length).sum();
        tokens = new int[rows];
        positions = new int[rows];
        List<Optional<Adapter>> adapters = new ArrayList<>();
        int row = 0;
        for (SequenceInput input : inputs) {
            int count = input.tokens().length;
            int start = input.cache().length();
            require(count >= 1 && start + count <= spec.contextLength(),
                    "%d positions exceed the context of %d", start + count, spec.contextLength());
            require(input.cache().pages() * (long) Device.BLOCK >= start + count,
                    "no page is reserved for %d tokens", count);
            BaseModel.requireInVocabulary(input.tokens(), spec);
            sequences.add(new Sequence(row, count, start, input.cache().table()));
            System.arraycopy(input.tokens(), 0, tokens, row, count);
            for (int i = 0; i < count; i++) {
                positions[row + i] = start + i;
                adapters.add(input.adapter());
            }
            row += count;
        }
        slots = slots(adapters);
        pages = inputs.getFirst().cache().owner().pool();
    }

    /// Neighbouring rows of one adapter make one slot.
    static List<Slot> slots(List<Optional<Adapter>> adapters) {
        List<Slot> slots = new ArrayList<>();
        for (int row = 0; row < adapters.size(); ) {
            int end = row + 1;
            while (end < adapters.size() && adapters.get(end).equals(adapters.get(row))) end++;
            if (adapters.get(row).isPresent()) {
                Adapter a = adapters.get(row).get();
                slots.add(new Slot(row, end - row, a.scale(), a.weights(), Optional.empty()));
            }
            row = end;
        }
        return slots;
    }

    /// Tokens of all sequences.
    public int rows() {
        return tokens.length;
    }

    /// Token ids, to be uploaded for [BaseModel#forward].
    public HostArray tokens() {
        return HostArray.column(tokens);
    }

    /// Positions of the tokens, to be uploaded for [BaseModel#forward].
    public HostArray positions() {
        return HostArray.column(positions);
    }

    List<Sequence> sequences() {
        return sequences;
    }

    List<Slot> slots() {
        return slots;
    }

    PagePool pages() {
        return pages;
    }

    int longest() {
        return sequences.stream().mapToInt(s -> s.position() + s.count()).max().orElse(0);
    }

    /// Residual rows after the last layer.
    ///
    /// @param hidden `[all sequences' tokens, hidden]`
    /// @param slots the adapters of these rows
    public record Output(Tensor hidden, Slots slots) {}
}
