module example.org/monorepo/greeter

go 1.24
