package bios.worker.device;

/// One sequence in an attention call: its queries are rows `row` to `row + count` of q, at positions
/// `position` to `position + count` of the sequence.
///
/// @param pages numbers of the pages that contain its keys and values from position 0, [Device#BLOCK]
///     positions each, enough for position + count positions; empty for a whole sequence whose keys are
///     packed like its queries (then position is 0)
public record Sequence(int row, int count, int position, int[] pages) {
    /// A whole sequence with packed keys and values.
    public static Sequence packed(int row, int count) {
        return new Sequence(row, count, 0, new int[0]);
    }
}
