/// The coordinator: entities of runs and sessions, sampling router, HTTP gateway, and their metrics.
package bios.coordinator;
