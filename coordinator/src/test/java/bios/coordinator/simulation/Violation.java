package bios.coordinator.simulation;

/// A violation that the oracle has found.
final class Violation extends RuntimeException {
    private static final long serialVersionUID = 1;

    Violation(String what) {
        super(what, null, false, false);
    }
}
