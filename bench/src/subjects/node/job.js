// The guest's jobs (see the crate guest-kernel) on stdin and stdout.
"use strict";

const fs = require("node:fs");

const words = process.argv.slice(2);
const value = (key, otherwise) => {
  const word = words.find((word) => word.startsWith(`${key}=`));
  return word === undefined ? otherwise : word.slice(key.length + 1);
};
const say = (line) => fs.writeSync(1, `${line}\n`);

const echo = () => {
  say("READY");
  const lines = require("node:readline").createInterface({ input: process.stdin });
  lines.on("line", (line) => (line === "exit" ? process.exit(0) : say(`ECHO ${line}`)));
};

const jobs = {
  ready: () => say("READY"),
  idle: () => {
    say("READY");
    setInterval(() => {}, 1 << 30);
  },
  echo,
};

const job = jobs[value("mode", "ready")];
if (job === undefined) {
  say(`error=unknown-mode detail=${value("mode")}`);
  process.exit(2);
}
job();
