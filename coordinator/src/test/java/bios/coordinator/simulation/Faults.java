package bios.coordinator.simulation;

/// How often things go wrong, each "once in so many times", 0: never; and whether they may now. Every seed
/// has its own mixture, so that each fault is also seen alone.
final class Faults {
    boolean calm;
    final int drop;
    final int repeat;
    final int slowNetwork;
    final int journalFails;
    final int snapshotFails;
    final int blobFails;
    final int blobSlow;
    final int damage;
    final int indexFails;
    /// Mean milliseconds between deaths of nodes.
    final int kill;
    final int suspect;
    final int forget;
    final int move;
    final int resolverFails;
    /// The engine does not open a run.
    final int refuse;
    /// The engine's answers for a run come late.
    final int late;
    /// Mean milliseconds between losses of a device.
    final int loseDevice;

    Faults(Stage stage) {
        drop = sometimes(stage, 5, 30);
        repeat = sometimes(stage, 5, 30);
        slowNetwork = sometimes(stage, 10, 40);
        journalFails = sometimes(stage, 15, 80);
        snapshotFails = sometimes(stage, 2, 8);
        blobFails = sometimes(stage, 10, 60);
        blobSlow = sometimes(stage, 5, 30);
        damage = sometimes(stage, 5, 30);
        indexFails = sometimes(stage, 2, 10);
        kill = sometimes(stage, 4_000, 20_000);
        suspect = sometimes(stage, 8_000, 40_000);
        forget = sometimes(stage, 8_000, 40_000);
        move = sometimes(stage, 8_000, 40_000);
        resolverFails = sometimes(stage, 2, 10);
        refuse = sometimes(stage, 2, 10);
        late = sometimes(stage, 5, 30);
        loseDevice = sometimes(stage, 8_000, 40_000);
    }

    private static int sometimes(Stage stage, int low, int high) {
        return stage.oneIn(2) ? 0 : (int) stage.between(low, high);
    }

    /// Whether a fault that happens once in `times` happens now.
    boolean hits(Stage stage, int times) {
        return !calm && stage.oneIn(times);
    }
}
