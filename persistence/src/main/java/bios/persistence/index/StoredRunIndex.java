package bios.persistence.index;

import bios.protocol.run.RunId;
import java.util.List;

/// A run index in a database, which can be searched for runs of all owners.
public interface StoredRunIndex extends RunIndex, AutoCloseable {
    /// The runs with a checkpoint that has expired: their entities have not removed it yet.
    List<RunId> expired();

    @Override void close();
}
