package bios.coordinator.run;

import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import org.apache.pekko.actor.typed.ActorRef;

/// Answers for a run that cannot be read from the journal.
final class DamagedRun {
    private DamagedRun() {}

    /// Refuses a command.
    ///
    /// @param what the damage
    /// @return false: the command stops the entity
    static boolean refuse(RunCommand command, String what) {
        // Another run that loads from this one waits, as for a run that does not answer.
        var unavailable = new RunReply.Refused(Reason.UNAVAILABLE, what);
        var damaged = new RunReply.Refused(Reason.DAMAGED, what);
        return switch (command) {
            case RunCommand.Leave _ -> false;
            case RunCommand.Resolve c -> answer(c.replyTo(), unavailable);
            case RunCommand.KeepWeights c -> answer(c.replyTo(), unavailable);
            case RunCommand.ReleaseSnapshots c -> answer(c.replyTo(), unavailable);
            case RunCommand.Create c -> answer(c.replyTo(), damaged);
            case RunCommand.Submit c -> answer(c.replyTo(), damaged);
            case RunCommand.Retrieve c -> answer(c.replyTo(), damaged);
            case RunCommand.CheckOwner c -> answer(c.replyTo(), damaged);
            case RunCommand.Summarize c -> answer(c.replyTo(), damaged);
            case RunCommand.Describe c -> answer(c.replyTo(), damaged);
            case RunCommand.DeleteCheckpoint c -> answer(c.replyTo(), damaged);
            case RunCommand.Publish c -> answer(c.replyTo(), damaged);
            case RunCommand.SetProject c -> answer(c.replyTo(), damaged);
            case RunCommand.SetExpiry c -> answer(c.replyTo(), damaged);
            case RunCommand.Unload c -> answer(c.replyTo(), damaged);
            case RunCommand.GetHistory c -> answer(c.replyTo(), damaged);
            case RunCommand.GetMetrics c -> answer(c.replyTo(), damaged);
            case RunCommand.GetTimings c -> answer(c.replyTo(), damaged);
            case RunCommand.Retry c -> answer(c.replyTo(), damaged);
            case RunCommand.GiveUp c -> answer(c.replyTo(), damaged);
            case RunCommand.ReportDeath _ -> true;
        };
    }

    private static boolean answer(ActorRef<RunReply> replyTo, RunReply refused) {
        replyTo.tell(refused);
        return true;
    }
}
