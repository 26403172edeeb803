package bios.node;

import bios.CommandFailed;
import bios.Logs;
import bios.protocol.model.ModelName;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.Devices;
import bios.worker.load.ModelFolders;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The program `bios up` with a device that has a fault while the file of that fault exists: the wiring and
/// the end of the process are the program's own.
public final class FaultyNode {
    /// The faults of the device.
    enum Fault {
        /// The device is lost, and its `close` hangs.
        LOST,
        /// The process ends during the pass of a `forward_backward`, as by a fault of a driver.
        ENDS,
        /// The pass of a `forward_backward` hangs.
        HANGS;

        /// The file whose existence causes it.
        Path file(Path folder) {
            return folder.resolve(name());
        }
    }

    /// The exit status of [Fault#ENDS].
    static final int ENDED_STATUS = 99;
    /// The file that [Fault#HANGS] creates when the pass hangs.
    static final String HANGING = "hanging";
    /// A verb of the passes of `forward_backward` only.
    private static final String VERB_OF_PASSES = "lossGradient";

    private FaultyNode() {}

    /// @param arguments folder of the data, folder of the model, folder of the files of faults, settings
    public static void main(String[] arguments) throws InterruptedException {
        Logs.configure("");
        Path faults = Path.of(arguments[2]);
        var settings = new Node.Settings(Optional.empty(), EnumSet.allOf(Role.class), "127.0.0.1", 0,
                Path.of(arguments[0]), new ModelFolders(
                        Map.of(new ModelName("bios/tiny"), Path.of(arguments[1])), List.of()),
                Optional.empty(), Optional.of(1), ConfigFactory.parseString(arguments[3]), Optional.empty());
        try {
            Node node = Node.start(settings, device -> faulty(Devices.open(device), faults));
            System.out.println("ready " + node.url().orElseThrow());
            node.awaitEnd();
            System.exit(0);
        } catch (CommandFailed failed) {
            System.err.println("bios: " + failed.getMessage());
            System.exit(failed.status());
        }
    }

    private static Device faulty(Device real, Path faults) {
        return (Device) Proxy.newProxyInstance(Device.class.getClassLoader(), new Class<?>[] {Device.class},
                (_, method, arguments) -> {
                    if (Files.exists(Fault.LOST.file(faults))) lost(method.getName());
                    if (method.getName().equals(VERB_OF_PASSES)) inPass(faults);
                    try {
                        return method.invoke(real, arguments);
                    } catch (InvocationTargetException failed) {
                        throw failed.getCause();
                    }
                });
    }

    private static void lost(String verb) throws InterruptedException {
        if (verb.equals("close")) Thread.sleep(Long.MAX_VALUE); // edge: a driver that hangs
        throw new DeviceLost("fell off the bus");
    }

    private static void inPass(Path faults) throws IOException, InterruptedException {
        if (Files.exists(Fault.ENDS.file(faults))) Runtime.getRuntime().halt(ENDED_STATUS);
        if (!Files.exists(Fault.HANGS.file(faults))) return;
        Files.createFile(faults.resolve(HANGING));
        Thread.sleep(Long.MAX_VALUE); // edge: a driver that hangs
    }
}
