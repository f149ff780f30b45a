from nocap.cli.main import main

main()
