package bios.persistence.journal;

import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.DatabaseUnusable;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JournalLoss.Loss;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Compares the embedded journal with the [AcknowledgedLog] and with the blobs beside it, before a process
/// starts. An older journal, which opens without an error, is found out here. The events of runs and sessions
/// are verified when they are read; those of cluster sharding, which no run can do without, are verified
/// here.
public final class JournalCheck {
    private static final Logger LOG = LoggerFactory.getLogger(JournalCheck.class);

    private JournalCheck() {}

    /// Makes the journal of a data folder ready for use: [JournalLoss] if events are lost, otherwise the
    /// tables and the [AcknowledgedLog] are there and agree.
    public static void open(Path data) {
        Path folder = OfflineJournal.folder(data);
        var file = OfflineJournal.acknowledged(folder);
        Map<String, Long> known = file.map(AcknowledgedLog.Contents::newest).orElse(Map.of());
        Map<String, Long> heads = Map.of();
        if (EmbeddedDatabase.exists(folder)) {
            try (OfflineJournal journal = OfflineJournal.read(data)) {
                heads = journal.heads();
                refuse(data, "the journal in " + folder + " has lost acknowledged events",
                        OfflineJournal.losses(known, heads));
                refuse(data, "the journal in " + folder + " is damaged", damage(journal, heads, file));
            } catch (SQLException failed) {
                throw OfflineJournal.unreadable(data, failed);
            }
        } else refuse(data, "the journal in " + folder + " is missing or empty, and " + AcknowledgedLog.file(
                folder) + " knows of acknowledged events", OfflineJournal.losses(known, heads));
        if (file.isEmpty() && heads.isEmpty()) refuse(data, "the journal in " + folder
                + " is missing or empty, but there are blobs of runs", OfflineJournal.runsWithBlobs(data)
                        .stream().map(run -> "run " + run + ": the journal has none of its events").toList());
        try {
            EmbeddedDatabase.createSchema(folder);
        } catch (DatabaseUnusable failed) {
            throw OfflineJournal.unchangeable(data, failed);
        }
        acknowledge(folder, file, heads);
    }

    private static void refuse(Path data, String what, List<?> losses) {
        if (!losses.isEmpty()) throw new JournalLoss(data, what, losses);
    }

    /// The damage that only a reading of events finds: of all entities if the [AcknowledgedLog] cannot tell
    /// what is missing, otherwise of those of cluster sharding.
    private static List<String> damage(OfflineJournal journal, Map<String, Long> heads,
            Optional<AcknowledgedLog.Contents> file) {
        boolean unsure = journal.current() && file.map(AcknowledgedLog.Contents::damaged).orElse(true);
        List<String> found = new ArrayList<>();
        heads.forEach((id, head) -> {
            if (unsure || JournalLoss.name(id).equals(id)) for (String problem : journal.rows(id)
                    .problems(head)) found.add(JournalLoss.name(id) + ": " + problem);
        });
        if (unsure && found.isEmpty() && !heads.isEmpty()) LOG.warn("{} is missing or damaged; the"
                + " journal beside it is whole, each event was verified, and the file is written again",
                AcknowledgedLog.file(OfflineJournal.folder(journal.data())));
        return found;
    }

    private static void acknowledge(Path folder, Optional<AcknowledgedLog.Contents> file,
            Map<String, Long> heads) {
        try {
            if (file.filter(AcknowledgedLog.Contents::damaged).isPresent())
                Files.copy(AcknowledgedLog.file(folder), folder.resolve("acknowledged.log.damaged"),
                        StandardCopyOption.REPLACE_EXISTING);
            Map<String, Long> newest = new HashMap<>(file.map(AcknowledgedLog.Contents::newest)
                    .orElse(Map.of()));
            heads.forEach((id, head) -> newest.merge(id, head, Math::max));
            AcknowledgedLog.replace(folder, newest);
        } catch (IOException failed) {
            throw new UncheckedIOException(AcknowledgedLog.file(folder) + " cannot be written: "
                    + failed.getMessage(), failed);
        }
    }
}
