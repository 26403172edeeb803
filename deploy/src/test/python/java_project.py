"""A Maven project outside the tree uses the published client: in Java, Kotlin and Scala.

    python java_project.py [--languages java,kotlin,scala] [--online]

Publishes `bios-protocol` with its sources and Javadoc into a local repository of its own (the `publish` profile), makes a
small project in a temporary folder that names it as its only dependency, compiles it, and runs it against `bios up`. The
compilers of Kotlin and Scala come from Maven Central (`--online`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import List

from harness import NAME, ROOT, Server, free_port, holds, server

VERSION = "0.1.0-SNAPSHOT"
KOTLIN, SCALA_PLUGIN, SCALA = "2.3.0", "4.9.5", "2.13.18"

PROJECT = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>caller</groupId><artifactId>caller</artifactId><version>1</version>
  <properties><project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>
  <dependencies>
    <dependency><groupId>bios</groupId><artifactId>bios-protocol</artifactId><version>0.1.0-SNAPSHOT</version></dependency>%s
  </dependencies>
  <build>
    <sourceDirectory>src</sourceDirectory>
    <plugins>%s</plugins>
  </build>
</project>
"""

COMPILERS = {
    "java": ("", """
      <plugin><artifactId>maven-compiler-plugin</artifactId><version>3.14.0</version>
        <configuration><release>25</release></configuration></plugin>"""),
    "kotlin": (f"""
    <dependency><groupId>org.jetbrains.kotlin</groupId><artifactId>kotlin-stdlib</artifactId><version>{KOTLIN}</version></dependency>""", f"""
      <plugin><groupId>org.jetbrains.kotlin</groupId><artifactId>kotlin-maven-plugin</artifactId><version>{KOTLIN}</version>
        <executions><execution><id>compile</id><phase>compile</phase><goals><goal>compile</goal></goals></execution></executions>
        <configuration><jvmTarget>25</jvmTarget></configuration></plugin>"""),
    "scala": (f"""
    <dependency><groupId>org.scala-lang</groupId><artifactId>scala-library</artifactId><version>{SCALA}</version></dependency>""", f"""
      <plugin><groupId>net.alchim31.maven</groupId><artifactId>scala-maven-plugin</artifactId><version>{SCALA_PLUGIN}</version>
        <executions><execution><phase>compile</phase><goals><goal>compile</goal></goals></execution></executions>
        <configuration><sourceDir>${{project.basedir}}/src</sourceDir><scalaVersion>{SCALA}</scalaVersion></configuration></plugin>"""),
}

SOURCES = {
    "java": ("Caller.java", """
import bios.client.*;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import java.util.List;

public final class Caller {
    public static void main(String[] args) {
        try (var client = BiosClient.connect(ClientSettings.of(args[0]))) {
            System.out.println("step " + client.createRun(args[1], Request.Adapter.ofRank(8)).thenCompose(run -> {
                run.forwardBackward(Batch.ofTexts(List.of(new int[] {5, 9, 3})));
                return run.optimStep(AdamParams.DEFAULT);
            }).toCompletableFuture().join().step());
        }
    }
}
"""),
    "kotlin": ("Caller.kt", """
import bios.client.*
import bios.protocol.client.Request
import bios.protocol.run.AdamParams

object Caller {
    @JvmStatic fun main(args: Array<String>) {
        BiosClient.connect(ClientSettings.of(args[0]).onWait { why -> println(why) }).use { client ->
            val stepped = client.createRun(args[1], Request.Adapter.ofRank(8)).thenCompose { run ->
                run.forwardBackward(Batch.ofTexts(listOf(intArrayOf(5, 9, 3))))
                run.optimStep(AdamParams.DEFAULT)
            }.toCompletableFuture().join()
            println("step " + stepped.step())
        }
    }
}
"""),
    "scala": ("Caller.scala", """
import bios.client._
import bios.protocol.client.Request
import bios.protocol.run.AdamParams
import scala.jdk.FutureConverters._
import scala.concurrent.{Await, ExecutionContext}
import scala.concurrent.duration._

object Caller {
  implicit val context: ExecutionContext = ExecutionContext.global

  def main(args: Array[String]): Unit = {
    val client = BiosClient.connect(ClientSettings.of(args(0)))
    val stepped = for {
      run <- client.createRun(args(1), Request.Adapter.ofRank(8)).asScala
      _ = run.forwardBackward(Batch.ofTexts(java.util.List.of(Array(5, 9, 3))))
      step <- run.optimStep(AdamParams.DEFAULT).asScala
    } yield step.step()
    println("step " + Await.result(stepped, 2.minutes))
    client.close()
  }
}
"""),
}


def maven(arguments: List[str], repository: Path, home: Path, online: bool) -> None:
    command = [str(ROOT / "mvnw"), "-B", "-ntp", "-q", f"-Dmaven.repo.local={repository}"] + ([] if online else ["-o"]) + arguments
    done = subprocess.run(command, env={**os.environ, "JAVA_HOME": str(home)}, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"✗ {' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-2000:]}")


def publish(repository: Path, home: Path, online: bool) -> None:
    maven(["-P", "publish", "install", "-DskipTests", "-pl", "protocol", "-am"], repository, home, online)
    folder = repository / "bios" / "bios-protocol" / VERSION
    for suffix, entry in (("", "bios/client/BiosClient.class"), ("-sources", "bios/client/BiosClient.java"),
                          ("-javadoc", "bios/client/BiosClient.html")):
        jar = folder / f"bios-protocol-{VERSION}{suffix}.jar"
        with zipfile.ZipFile(jar) as archive:
            holds(f"{jar.name} has {entry}", entry in archive.namelist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", default="java")
    parser.add_argument("--online", action="store_true", help="Maven may download what is missing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bios-project-") as temporary:
        port = free_port()
        settings = Path(temporary) / "bios.conf"
        settings.write_text(f"bios.gateway.actors {{ enabled = on, port = {port} }}\n")
        with server(arguments=["--config", str(settings)]) as running:
            check(Path(temporary), running, port, arguments.languages.split(","), arguments.online)


def check(folder: Path, running: Server, port: int, languages: List[str], online: bool) -> None:
    """Publishes, compiles and runs, with the Java of the service."""
    assert running.process is not None
    home = Path(os.readlink(f"/proc/{running.process.pid}/exe")).parent.parent
    repository = folder / "repository"
    # What Maven has fetched before, without another copy of its bytes.
    shutil.copytree(Path.home() / ".m2" / "repository", repository, copy_function=os.link,
                    ignore=shutil.ignore_patterns("bios"))
    publish(repository, home, online)
    for language in languages:
        project = folder / language
        (project / "src").mkdir(parents=True)
        (project / "pom.xml").write_text(PROJECT % COMPILERS[language])
        name, text = SOURCES[language]
        (project / "src" / name).write_text(text)
        maven(["-f", str(project / "pom.xml"), "compile",
               "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath",
               f"-Dmdep.outputFile={project / 'classpath'}"], repository, home, online)
        classes = f"{project / 'target' / 'classes'}:{(project / 'classpath').read_text().strip()}"
        ran = subprocess.run([str(home / "bin" / "java"), "--sun-misc-unsafe-memory-access=allow", "-cp", classes, "Caller",
                              f"127.0.0.1:{port}", NAME], capture_output=True, text=True, timeout=180)
        holds(f"{language}: {ran.stdout.strip()[-200:]} {ran.stderr[-500:]}", "step 1" in ran.stdout)


if __name__ == "__main__":
    main()
