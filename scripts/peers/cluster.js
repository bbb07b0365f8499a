// The cluster module of Node with one worker, which accepts for itself: node cluster.js PORT
const cluster = require('cluster');
const http = require('http');

if (cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  cluster.fork();
  process.on('SIGTERM', () => process.exit(0));
} else {
  const body = Buffer.from('Hello, World!');
  const fields = { Server: 'node', 'Content-Type': 'text/plain', 'Content-Length': body.length };
  const server = http.createServer((request, response) => response.writeHead(200, fields).end(body));
  server.keepAliveTimeout = 0;
  server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
}
