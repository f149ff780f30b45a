// Runs telegram-test-api from the folder in argv[2] on the port in argv[3]; members are played by its own HTTP routes.
import { createRequire } from 'node:module'

const TelegramServer = createRequire(process.argv[2] + '/package.json')('telegram-test-api')
const server = new TelegramServer({ port: Number(process.argv[3]), host: '127.0.0.1' })
await server.start()
console.log('{}')
