// The cluster module of Node: node cluster_kept.js PORT WORKERS [CERTIFICATE KEY]. SIGHUP replaces all workers, SIGTTIN
// adds one, SIGTTOU removes one. One that is killed is replaced.
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');
const https = require('https');

if (cluster.isPrimary) {
  const workers = [];
  const start = () => workers.push(cluster.fork());
  for (let i = 0; i < Number(process.argv[3]); i++) start();
  process.on('SIGHUP', () => {
    const old = workers.splice(0);
    old.forEach((worker) => {
      start();
      workers.at(-1).once('listening', () => worker.disconnect());
    });
  });
  cluster.on('exit', (worker, code, signal) => {
    if (signal !== 'SIGKILL') return;
    workers.splice(workers.indexOf(worker), 1);
    start();
  });
  process.on('SIGTTIN', start);
  process.on('SIGTTOU', () => workers.pop().disconnect());
  process.on('SIGTERM', () => process.exit(0));
} else {
  const body = Buffer.from('Hello, World!');
  const fields = { 'Content-Type': 'text/plain', 'Content-Length': body.length, 'X-Pid': process.pid };
  const answer = (request, response) => response.writeHead(200, fields).end(body);
  const [cert, key] = process.argv.slice(4).map((name) => fs.readFileSync(name));
  const server = cert ? https.createServer({ cert, key }, answer) : http.createServer(answer);
  server.keepAliveTimeout = 0;
  server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
}
