package bios.coordinator.simulation;

/// The rates of the faults: each occurs once in this many cases; 0: never. Every seed has its own rates, so
/// that each fault also occurs alone.
final class Faults {
    boolean ended;
    final boolean calm;
    final int drop;
    final int repeat;
    final int slowNetwork;
    final int journalFails;
    final int snapshotFails;
    final int blobFails;
    final int blobSlow;
    final int damage;
    final int indexFails;
    /// Mean time between ends of nodes, milliseconds.
    final int kill;
    final int suspect;
    final int forget;
    final int move;
    final int resolverFails;
    /// The engine does not open a run.
    final int refuse;
    /// The engine's answers for a run are delayed.
    final int late;
    /// Mean time between losses of a device, milliseconds.
    final int loseDevice;

    /// @param calm whether nothing is lost or late between runs, and no process ends
    Faults(EventLoop loop, boolean calm) {
        this.calm = calm;
        drop = calm ? 0 : sometimes(loop, 5, 30);
        repeat = sometimes(loop, 5, 30);
        slowNetwork = calm ? 0 : sometimes(loop, 10, 40);
        journalFails = calm ? 0 : sometimes(loop, 15, 80);
        snapshotFails = sometimes(loop, 2, 8);
        blobFails = sometimes(loop, 10, 60);
        blobSlow = sometimes(loop, 5, 30);
        damage = sometimes(loop, 5, 30);
        indexFails = sometimes(loop, 2, 10);
        kill = calm ? 0 : sometimes(loop, 4_000, 20_000);
        suspect = calm ? 0 : sometimes(loop, 8_000, 40_000);
        forget = sometimes(loop, 8_000, 40_000);
        move = calm ? 0 : sometimes(loop, 8_000, 40_000);
        resolverFails = calm ? 0 : sometimes(loop, 2, 10);
        refuse = sometimes(loop, 2, 10);
        late = sometimes(loop, 5, 30);
        loseDevice = calm ? 0 : sometimes(loop, 8_000, 40_000);
    }

    private static int sometimes(EventLoop loop, int low, int high) {
        return loop.oneIn(2) ? 0 : (int) loop.between(low, high);
    }

    /// Whether a fault that occurs once in `times` cases occurs now.
    boolean hits(EventLoop loop, int times) {
        return !ended && loop.oneIn(times);
    }
}
